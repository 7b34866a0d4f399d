"""Differences are set arithmetic: applied to a model of the kernel they give what is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from dsr_node.subsystems.addresses import Addresses
from dsr_node.subsystems.addresses import Held as HeldAddresses
from dsr_node.subsystems.announcement import Announcer
from dsr_node.subsystems.base import Record, SubsystemError, difference
from dsr_node.subsystems.sysctls import Held, Sysctls
from hypothesis import given
from hypothesis import strategies as st

_items = st.frozensets(st.integers(0, 9))
_keys = st.sampled_from([f"ipv4/conf/{name}/arp_ignore" for name in ("all", "eth0", "eth1")])


@given(_items, _items, _items)
def test_difference(wanted: frozenset[int], ours: frozenset[int], foreign: frozenset[int]) -> None:
    held = ours | foreign
    change = difference(wanted, held, ours - foreign)
    after = (held | change.add) - change.remove
    assert after >= wanted
    assert after - wanted <= foreign, "only what is not ours may be there beside what is wanted"
    assert foreign <= after, "what is not ours stays"
    again = difference(wanted, after, after - foreign)
    assert not again


@given(_items, _items)
def test_addresses_leave_those_of_others(wanted: frozenset[int], others: frozenset[int]) -> None:
    texts = frozenset(f"10.0.0.{i}" for i in wanted)
    foreign = frozenset(f"10.0.0.{i}" for i in others)
    change = Addresses().diff(texts, HeldAddresses(all=foreign, ours=frozenset()))
    assert not change.remove
    assert change.add == texts - foreign


def test_announcer_tells_what_is_new() -> None:
    change = Announcer(lambda _: None).diff(frozenset(), frozenset())
    assert not change


class _Machine:
    """A kernel's sysctls and a daemon's record of them, in a directory."""

    def __init__(self, directory: Path, values: dict[str, int]) -> None:
        self.root = directory / "net"
        self.state = directory / "state"
        for key, value in values.items():
            (self.root / key).parent.mkdir(parents=True, exist_ok=True)
            (self.root / key).write_text(f"{value}\n")

    def values(self) -> dict[str, int]:
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): int(path.read_text()) for path in files}

    def carry_out(self, wanted: dict[str, int]) -> None:
        sysctls = Sysctls(self.root, self.state)  # a new daemon each time
        sysctls.add(sysctls.diff(wanted, sysctls.read(wanted)).add)
        sysctls.remove(sysctls.diff(wanted, sysctls.read(wanted)).remove)


@given(
    st.dictionaries(_keys, st.integers(0, 2), min_size=3, max_size=3),
    st.lists(st.dictionaries(_keys, st.integers(1, 2)), max_size=4),
)
def test_sysctls_reach_what_is_wanted_and_go_back(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, int],
    steps: list[dict[str, int]],
) -> None:
    machine = _Machine(tmp_path_factory.mktemp("m"), before)
    for wanted in steps:
        machine.carry_out(wanted)
        now = machine.values()
        assert all(now[key] >= value for key, value in wanted.items() if key in before)
        assert all(now[key] == before[key] for key in before if key not in wanted)
    machine.carry_out({})
    assert machine.values() == before
    assert not (machine.state / "sysctls.json").exists()


def test_a_stricter_value_of_the_administrator_stays() -> None:
    held = Held(now={"a": 8})
    assert not Sysctls(Path("/none"), Path("/none")).diff({"a": 1}, held)


def test_a_crash_between_record_and_write_is_mended(tmp_path: Path) -> None:
    machine = _Machine(tmp_path, {"ipv4/conf/all/arp_ignore": 0})
    Record(machine.state / "sysctls.json").write({"ipv4/conf/all/arp_ignore": "0"})
    machine.carry_out({"ipv4/conf/all/arp_ignore": 1})
    machine.carry_out({})
    assert machine.values() == {"ipv4/conf/all/arp_ignore": 0}


def test_an_interface_that_has_gone_is_forgotten(tmp_path: Path) -> None:
    machine = _Machine(tmp_path, {"ipv4/conf/eth0/arp_ignore": 0, "ipv4/conf/all/arp_ignore": 0})
    machine.carry_out(dict.fromkeys(machine.values(), 1))
    (machine.root / "ipv4/conf/eth0/arp_ignore").unlink()
    machine.carry_out({})
    assert machine.values() == {"ipv4/conf/all/arp_ignore": 0}
    assert not (machine.state / "sysctls.json").exists(), "nothing is left to undo"


@pytest.mark.parametrize("wanted", [{}, {"ipv4/conf/all/arp_ignore": 1}])
def test_another_interface_of_the_same_name_keeps_its_own_value(
    tmp_path: Path, wanted: dict[str, int]
) -> None:
    gone = "ipv4/conf/eth0/arp_ignore"
    machine = _Machine(tmp_path, {gone: 0, "ipv4/conf/all/arp_ignore": 0})
    machine.carry_out(dict.fromkeys(machine.values(), 1))
    (machine.root / gone).unlink()
    machine.carry_out(wanted)
    (machine.root / gone).write_text("2")
    machine.carry_out(wanted)
    assert machine.values()[gone] == 2


def test_a_damaged_record_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("{")
    with pytest.raises(SubsystemError, match=r"record\.json is damaged"):
        Record(path).read()
