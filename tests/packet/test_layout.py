"""The Python mirror of the C headers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from dsr_node.subsystems.xdp import layout
from dsr_node.table import word

BPF = Path(__file__).parents[2] / "node-daemon" / "bpf"

STRUCTS = {
    "frontend_key": layout.FRONTEND_KEY,
    "frontend_info": layout.FRONTEND_INFO,
    "pool": layout.POOL,
    "backend": layout.BACKEND,
    "flow": layout.FLOW,
    "flow_entry": layout.FLOW_ENTRY,
    "peer": layout.PEER,
    "interface": layout.INTERFACE,
    "stats": layout.STATS,
    "owner": layout.OWNER,
}
WITHIN = {"backend": {"mac": "next_hop.mac", "flags": "next_hop.flags"}}
CONSTANTS = {
    "HANDLE_ID_BITS": word.ID_BITS,
    "HANDLE_GENERATION_BITS": word.GENERATION_BITS,
    "HANDLE_MASK": word.MAX_GENERATION << word.ID_BITS | word.MAX_ID,
    "SLOT_SETTLED_SHIFT": 32,
    "SLOT_MOVED": 1 << 63,
    "CHUNK_SLOTS": layout.CHUNK_SLOTS,
    "MAX_CHUNKS": layout.MAX_CHUNKS,
    "FRONTEND_HOST": layout.FRONTEND_HOST,
    "BACKEND_LOCAL": layout.BACKEND_LOCAL,
    "BACKEND_DOWN": layout.BACKEND_DOWN,
    "BACKEND_DRAINING": layout.BACKEND_DRAINING,
    "FLOW_CLOSING": layout.FLOW_CLOSING,
    "CLOSING_S": layout.CLOSING_S,
    "FLOWS_FULL": layout.FLOWS_FULL,
    "DROP_REASONS": max(layout.FLOWS_FULL, *layout.DROP_REASONS) + 1,
    **{f"DROP_{name.upper()}": reason for reason, name in layout.DROP_REASONS.items()},
}


def lines() -> list[str]:
    """What the headers must agree to, as C statements that print the values."""
    found = [f'printf("{name} %llu\\n", (unsigned long long){name});' for name in CONSTANTS]
    for name, dtype in STRUCTS.items():
        within = WITHIN.get(name, {})
        found.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        found += [
            f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {within.get(field, field)}));'
            for field in dtype.names or ()
        ]
    return found


def expected() -> dict[str, int]:
    values = dict(CONSTANTS)
    for name, dtype in STRUCTS.items():
        values[name] = dtype.itemsize
        values |= {f"{name}.{field}": offset(dtype, field) for field in dtype.names or ()}
    return values


def offset(dtype: np.dtype[np.void], field: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[field][1])


def test_structs_and_constants_are_those_of_the_headers(tmp_path: Path) -> None:
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/types.h>\n"
        f'#include "{BPF}/consts.h"\n#include "{BPF}/structs.h"\n'
        "int main(void) {\n" + "\n".join(lines()) + "\nreturn 0;\n}\n"
    )
    subprocess.run(["cc", source, "-o", tmp_path / "layout"], check=True)
    printed = subprocess.run([tmp_path / "layout"], check=True, capture_output=True, text=True)
    found = dict(line.split() for line in printed.stdout.splitlines())
    assert {name: int(value) for name, value in found.items()} == expected()
