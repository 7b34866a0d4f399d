"""The segment: a bridge in the hub, and a cable from it to each member.

The hub is a network namespace of the lab's own; it holds the bridge, the control plane and the
operator. The host's own network gets one interface, by which kubectl reaches the API server.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lab.errors import LabError
from lab.names import HUB, IPV4_LENGTH, IPV6_LENGTH, Member
from lab.namespaces import Namespaces, program

BRIDGE = "br0"
UPLINK = "eth0"
WIRE = Path(__file__).with_name("wire.c")
HOST_LINKS = ipaddress.ip_network("169.254.77.0/24")
"""Link-local (RFC 3927): four addresses a lab, for the cable between the host and the hub."""
MAX_LABS = HOST_LINKS.num_addresses // 4


def host_link_name(lab: str) -> str:
    """The interface in the host's network."""
    return f"dsr-{lab}"


def host_link_addresses(index: int) -> tuple[str, str]:
    """The host's end and the hub's end of cable `index`."""
    return str(HOST_LINKS[4 * index + 1]), str(HOST_LINKS[4 * index + 2])


def free_host_link(taken: Iterable[int]) -> int:
    """A cable that neither another lab nor anything else on this machine uses."""
    used = set(taken)
    addresses = _host_addresses()
    for index in range(MAX_LABS):
        if index not in used and host_link_addresses(index)[0] not in addresses:
            return index
    raise LabError(f"all {MAX_LABS} places for labs are taken: `lab down --name NAME` frees one")


def build_hub(hub: Namespaces, lab: str, index: int) -> None:
    """Make the bridge, and the cable to the host."""
    name = host_link_name(lab)
    at_host, at_hub = host_link_addresses(index)
    ip_batch(
        None,
        f"link add {name} type veth peer name host netns {hub.pid}",
        f"addr add {at_host}/30 dev {name}",
        f"link set {name} up",
    )
    ip_batch(
        hub,
        f"addr add {at_hub}/30 dev host",
        "link set host up",
        f"link add {BRIDGE} address {HUB.mac} type bridge forward_delay 0 mcast_snooping 0",
        f"addr add {HUB.ipv4}/{IPV4_LENGTH} dev {BRIDGE}",
        f"addr add {HUB.ipv6}/{IPV6_LENGTH} dev {BRIDGE} nodad",
        f"link set {BRIDGE} up",
    )


def plug(hub: Namespaces, node: Namespaces, member: Member) -> None:
    """Lay the cable from the hub to a member, and give the member its addresses."""
    port = member.name
    ip_batch(
        hub,
        f"link add {port} type veth peer name {UPLINK} address {member.mac} netns {node.pid}",
        f"link set {port} master {BRIDGE} up",
    )
    if member.role == "lb":
        _make_wire(hub, port)
    ip_batch(
        node,
        f"addr add {member.ipv4}/{IPV4_LENGTH} dev {UPLINK}",
        f"addr add {member.ipv6}/{IPV6_LENGTH} dev {UPLINK} nodad",
        f"link set {UPLINK} up",
    )


def _make_wire(hub: Namespaces, port: str) -> None:
    """Let a cable behave as a wire does, for XDP at its other end.

    tx off: the packet has its checksum by the time XDP sees it; a veth else carries the note "to be
    filled in" to the receiver, and XDP_TX loses that note. The program: see wire.c.
    """
    run(hub.enter([program("ethtool"), "-K", port, "tx", "off"]))
    with tempfile.TemporaryDirectory() as directory:
        built = f"{directory}/wire.o"
        run([program("clang"), "-O2", "-target", "bpf", "-c", str(WIRE), "-o", built])
        ip_batch(hub, f"link set {port} xdp object {built} section xdp")


def unplug(hub: Namespaces, member: Member) -> None:
    """Cut the cable; fine if it is gone."""
    if _has_link(hub, member.name):
        ip_batch(hub, f"link del {member.name}")


def remove_host_link(lab: str) -> None:
    """Cut the cable to the host; fine if it is gone."""
    if has_host_link(lab):
        ip_batch(None, f"link del {host_link_name(lab)}")


def has_host_link(lab: str) -> bool:
    """Whether the cable to the host is there."""
    return _has_link(None, host_link_name(lab))


def ip_batch(where: Namespaces | None, *commands: str) -> None:
    """Do these `ip` commands in a member, or on the host. Raises LabError at the first failure."""
    argv = [program("ip"), "-batch", "-"]
    try:
        run(where.enter(argv) if where else argv, "\n".join(commands))
    except LabError as error:
        raise LabError("\n".join([str(error), *commands])) from error


def run(argv: list[str], stdin: str = "") -> str:
    """What a command prints. Raises LabError with its complaint if it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        complaint = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"`{' '.join(argv)}` failed: {complaint}")
    return done.stdout


def _has_link(where: Namespaces | None, name: str) -> bool:
    argv = [program("ip"), "-json", "link", "show"]
    links = json.loads(run(where.enter(argv) if where else argv))
    return any(link["ifname"] == name for link in links)


def _host_addresses() -> frozenset[str]:
    links = json.loads(run([program("ip"), "-json", "addr", "show"]))
    return frozenset(each["local"] for link in links for each in link["addr_info"])
