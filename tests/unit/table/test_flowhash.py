"""hash.h and flowhash.py are one hash, and it spreads flows evenly."""

from __future__ import annotations

import ctypes
import ipaddress
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dsr_node.table.flowhash import flow_hash, slot_of
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

HASH_H = Path(__file__).parents[3] / "node-daemon" / "bpf" / "hash.h"
SOURCE = """
#include "hash.h"

__u32 one(const struct flow *flow, __u64 seed)
{
	return flow_hash(flow, seed);
}

void many(const struct flow *flows, __u32 *out, __u32 n, __u64 seed)
{
	for (__u32 i = 0; i < n; i++)
		out[i] = flow_hash(flows + i, seed);
}

__u32 slot(__u32 hash, __u32 size)
{
	return slot_of(hash, size);
}
"""
FLOW_BYTES = 40
PROTOCOL = 36
SEEDS = (0, 1, 0xFFFFFFFFFFFFFFFF, 0x0123456789ABCDEF, 0xDEADBEEF00000000)
SIZES = (1021, 4093, 16381, 65537)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    directory = tmp_path_factory.mktemp("hash")
    (directory / "hash.c").write_text(SOURCE)
    library = directory / "libhash.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{HASH_H.parent}"]
    subprocess.run(["cc", *flags, "-o", library, directory / "hash.c"], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.one.argtypes = [ctypes.c_char_p, ctypes.c_uint64]
    loaded.one.restype = ctypes.c_uint32
    loaded.many.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64]
    loaded.slot.argtypes = [ctypes.c_uint32, ctypes.c_uint32]
    loaded.slot.restype = ctypes.c_uint32
    return loaded


def hashes(native: ctypes.CDLL, packets: NDArray[np.uint8], seed: int) -> NDArray[np.uint32]:
    """Hashes of rows that are each a struct flow (bpf/structs.h)."""
    data = np.ascontiguousarray(packets)
    out = np.empty(len(data), dtype=np.uint32)
    native.many(data.ctypes.data, out.ctypes.data, len(data), seed)
    return out


addresses = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=4, max_size=4).map(lambda four: bytes(10) + b"\xff\xff" + four),
)
ports = st.integers(0, 65535)


flows = st.tuples(addresses, addresses, ports, ports, st.integers(0, 255))


@given(flows, st.integers(0, 2**64 - 1))
def test_python_and_c_agree(
    native: ctypes.CDLL, flow: tuple[bytes, bytes, int, int, int], seed: int
) -> None:
    row = struct.pack(">16s16sHHB3x", *flow)
    assert native.one(row, seed) == flow_hash(*flow, seed)


def test_the_hash_is_the_one_of_table_version_1() -> None:
    """Another value here is another TABLE_VERSION: LB nodes of two versions would disagree."""
    client = ipaddress.IPv6Address("::ffff:198.51.100.7").packed
    vip = ipaddress.IPv6Address("::ffff:192.0.2.10").packed
    assert flow_hash(client, vip, 40000, 80, 6, 0x0123456789ABCDEF) == 623121108


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**20))
def test_slots_are_within_the_table(native: ctypes.CDLL, hash32: int, size: int) -> None:
    assert 0 <= slot_of(hash32, size) < size
    assert native.slot(hash32, size) == slot_of(hash32, size)


def test_an_address_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        flow_hash(bytes(4), bytes(16), 1, 2, 6, 0)


def packets_of(
    saddr: NDArray[np.integer[Any]], sport: NDArray[np.integer[Any]]
) -> NDArray[np.uint8]:
    """IPv4 flows to one VIP: source addresses and ports as numbers."""
    packets = np.zeros((len(saddr), FLOW_BYTES), dtype=np.uint8)
    packets[:, 10:12] = packets[:, 26:28] = 0xFF
    packets[:, 12:16] = saddr.astype(">u4").view(np.uint8).reshape(-1, 4)
    packets[:, 28:32] = (192, 0, 2, 10)
    packets[:, 32:34] = sport.astype(">u2").view(np.uint8).reshape(-1, 2)
    packets[:, 34:36] = (0, 80)
    packets[:, PROTOCOL] = 6
    return packets


def shapes() -> dict[str, NDArray[np.uint8]]:
    """What clients look like: one host's ports, a subnet, a NAT's hosts, hosts far apart."""
    ones = np.ones(64512, dtype=np.uint32)
    hosts = np.arange(65536, dtype=np.uint32)
    zeros = np.zeros(65536, dtype=np.uint32)
    return {
        "ports of one host": packets_of(ones * 0xC6336407, np.arange(1024, 65536, dtype=np.uint32)),
        "hosts of a /16, one port": packets_of(0x0A000000 + hosts, zeros + 40000),
        "256 hosts, 256 ports": packets_of(0x0A000000 + (hosts & 255), 32768 + (hosts >> 8)),
        "every 256th host": packets_of(0x0A000000 + 256 * hosts, zeros + 40000),
        "even ports, as Linux connects": packets_of(
            0x0A000000 + (hosts >> 13), 32768 + 2 * (hosts & 8191)
        ),
    }


@pytest.mark.parametrize("shape", shapes())
@pytest.mark.parametrize("size", SIZES)
def test_flows_spread_evenly(native: ctypes.CDLL, shape: str, size: int) -> None:
    """Chi-square over the slots within 6 standard deviations of a perfect hash's, on both sides:
    clumped is bad for balance, and far too even would mean that the hash is nearly linear."""
    packets = shapes()[shape]
    for seed in SEEDS:
        slots = hashes(native, packets, seed).astype(np.uint64) * np.uint64(size) >> np.uint64(32)
        counts = np.bincount(slots.astype(np.int64), minlength=size)
        expected = len(packets) / size
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        deviations = (chi_square - (size - 1)) / (2 * (size - 1)) ** 0.5
        assert abs(deviations) < 6, f"{shape}, seed {seed:#x}: {deviations:.1f} deviations off"


def test_each_input_bit_flips_half_of_the_output_bits(native: ctypes.CDLL) -> None:
    """Avalanche: for each of the 296 bits of a flow, each output bit flips with p = 0.5 +- 0.05."""
    rng = np.random.default_rng(7)
    packets = rng.integers(0, 256, (2048, FLOW_BYTES), dtype=np.uint8)
    for seed in SEEDS:
        before = hashes(native, packets, seed)
        for bit in range(8 * (PROTOCOL + 1)):
            flipped = packets.copy()
            flipped[:, bit // 8] ^= np.uint8(1 << bit % 8)
            changed = before ^ hashes(native, flipped, seed)
            rates = [float((changed >> np.uint32(out) & 1).mean()) for out in range(32)]
            assert min(rates) > 0.44, (seed, bit, rates)
            assert max(rates) < 0.56, (seed, bit, rates)


def test_each_seed_bit_makes_another_hash(native: ctypes.CDLL) -> None:
    packets = shapes()["256 hosts, 256 ports"]
    seed = random.Random(7).getrandbits(64)
    before = hashes(native, packets, seed)
    for bit in range(64):
        same = float((before == hashes(native, packets, seed ^ (1 << bit))).mean())
        assert same < 0.001, bit
