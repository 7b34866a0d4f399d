"""The program on interfaces: our pinned links, `link_<interface>`, and nobody else's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from dsr_api.node import XDP_BUSY, XDP_UNAVAILABLE

from dsr_node.bpf.links import Mode, XdpBusyError, XdpLink, attach, query
from dsr_node.bpf.programs import Program
from dsr_node.subsystems.xdp.observed import Link
from dsr_node.subsystems.xdp.state import Attachment, Problem

_PREFIX = "link_"

_log = logging.getLogger(__name__)


def read_links(pins: Path, program: Program) -> dict[str, Link]:
    """By interface name."""
    links = {}
    for name in _names(pins):
        with XdpLink.open(_path(pins, name)) as link:
            links[name] = Link(link.ifindex, _is_current(link, program))
    return links


def attach_link(pins: Path, program: Program, to: Attachment) -> Problem | None:
    """Attaches the program and pins the link, in place of one whose interface is gone."""
    try:
        if _path(pins, to.name).exists():
            _detach(pins, to.name)
        link, why_generic = attach(program.fd, to.ifindex)
        with link:
            link.pin(_path(pins, to.name))
    except XdpBusyError as error:
        return Problem(XDP_BUSY, str(error), interface=to.name)
    except OSError as error:
        return Problem(XDP_UNAVAILABLE, f"XDP does not run on {to.name}: {error}", "", to.name)
    if why_generic:
        _log.warning("XDP runs in generic mode on %s: %s", to.name, why_generic)
    return None


def update_link(pins: Path, program: Program, name: str) -> Problem | None:
    """Lets the interface run this program from the next packet on."""
    try:
        with XdpLink.open(_path(pins, name)) as link:
            link.update(program.fd)
    except OSError as error:
        message = f"{name} goes on with the XDP program of before: {error}"
        return Problem(XDP_UNAVAILABLE, message, "", name)
    return None


def detach_link(pins: Path, name: str) -> Problem | None:
    """Takes the program off the interface, and the pin away."""
    try:
        _detach(pins, name)
    except OSError as error:
        return Problem(XDP_UNAVAILABLE, f"XDP is still on {name}: {error}", "", name)
    return None


def detach_all(pins: Path) -> None:
    """Takes the program off every interface. Raises OSError."""
    for name in _names(pins):
        _detach(pins, name)


def _detach(pins: Path, name: str) -> None:
    with XdpLink.open(_path(pins, name)) as link:
        link.detach()
    _path(pins, name).unlink()


def read_modes(pins: Path) -> Mapping[str, Mode]:
    """How the program runs on each interface it is on."""
    modes = {}
    for name in _names(pins):
        with XdpLink.open(_path(pins, name)) as link:
            there = query(link.ifindex) if link.ifindex else None
            if there and there.program_id == link.program_id:
                modes[name] = there.mode
    return modes


def _path(pins: Path, name: str) -> Path:
    return pins / f"{_PREFIX}{name}"


def _names(pins: Path) -> list[str]:
    return sorted(path.name.removeprefix(_PREFIX) for path in pins.glob(f"{_PREFIX}*"))


def _is_current(link: XdpLink, program: Program) -> bool:
    if link.program_id == program.id:
        return True
    with Program.by_id(link.program_id) as running:
        return running.tag == program.tag and running.map_ids() == program.map_ids()
