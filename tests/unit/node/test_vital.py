"""What a node must not lose: how the daemon knows it."""

from __future__ import annotations

from pathlib import Path

from dsr_node.subsystems.network import nameservers


def test_dns_servers_are_those_of_resolv_conf(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 192.0.2.1\nsearch example\nnameserver 10.0.0.53\n"
        "nameserver\tfd00::53 \noptions ndots:5\nnameserver\n"
    )
    assert nameservers(file) == {"10.0.0.53", "fd00::53"}
    assert nameservers(tmp_path / "none") == frozenset()
