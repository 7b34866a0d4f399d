"""The subsystems that change the kernel, in their order. Everything here may block."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace

from dsr_node.bpf.links import Mode
from dsr_node.config import Config
from dsr_node.state.types import NodeState
from dsr_node.subsystems.addresses import Addresses
from dsr_node.subsystems.base import SubsystemError
from dsr_node.subsystems.sysctls import Sysctls
from dsr_node.subsystems.xdp.state import Problem
from dsr_node.subsystems.xdp.subsystem import XdpSubsystem
from dsr_node.subsystems.xdp.sweep import Swept

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What came of one pass.

    - `errors`: subsystem -> why it failed. `problems`: what XDP could not do. `modes`: interface ->
      how XDP runs on it.
    - `refused`: VIP -> why it is not on lo.
    - `repaired`: the subsystems that found something of ours changed by somebody else.
    """

    errors: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    modes: Mapping[str, Mode] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    repaired: set[str] = field(default_factory=set)


class Kernel:
    """Addresses, sysctls and XDP of this node."""

    def __init__(self, config: Config) -> None:
        self.addresses = Addresses()
        self.sysctls = Sysctls(config.sys_net, config.state_dir)
        self.xdp = XdpSubsystem(config.bpffs, config.limits)
        self.swept = Swept()
        self._refused: Set[str] = frozenset()
        self._modes: Mapping[str, Mode] = {}
        self._plans_on_disk = config.plans_on_disk
        self._done: dict[str, object] = {}

    def prepare(self, state: NodeState) -> Outcome:
        """The first half of carry_out(): sysctls, then VIPs on lo; removes nothing."""
        outcome = Outcome()
        self._add_first(state, outcome)
        return outcome

    def _add_first(self, state: NodeState, outcome: Outcome) -> None:
        self._step(outcome, "sysctls", state.sysctls, lambda: self._raise_sysctls(state))
        if "sysctls" not in outcome.errors:  # a VIP that the kernel answers ARP for is worse
            self._step(outcome, "addresses", state.addresses, lambda: self._add(state, outcome))

    def carry_out(self, state: NodeState) -> Outcome:
        """Makes the kernel hold a state: adding in order, then removing in reverse order.

        A subsystem that fails is named in the outcome and does not stop those that can go on.
        """
        outcome = Outcome()
        unleased = replace(state.director, announced={})
        if self._done.get("xdp") == unleased:
            # What a VIP announced now has waited for was an answer alone: it is not kept waiting
            # for the comparison of all tables below.
            self._step(outcome, "xdp", None, lambda: self._renew(state))
        self._add_first(state, outcome)
        self._step(outcome, "xdp", unleased, lambda: self._direct(state, outcome))
        if "xdp" not in outcome.errors:  # else a packet still forwarded here might find no VIP
            self._step(outcome, "addresses", None, lambda: bool(self._remove_addresses(state)))
        if not outcome.errors:
            self._step(outcome, "sysctls", None, lambda: bool(self._restore_sysctls(state)))
        return outcome

    def sweep(self) -> None:
        """Forgets flows that have ended, and settles slots. Raises OSError."""
        self.swept = self.xdp.sweep(time.monotonic())

    def renew(self, announced: Mapping[bytes, int]) -> None:
        """Moves the ends of ARP / NS leases. Raises OSError."""
        self.xdp.renew(announced)

    def clean_up(self) -> str:
        """Leaves the kernel as it was found, and tells what that took. Raises SubsystemError or
        OSError; safe to repeat."""
        programs = len(self.xdp.modes())
        self.xdp.remove_all()
        addresses = self._remove_addresses(NodeState())
        sysctls = self._restore_sysctls(NodeState())
        shutil.rmtree(self._plans_on_disk, ignore_errors=True)
        return (
            f"XDP programs taken off: {programs}; addresses removed: {addresses}; "
            f"sysctls restored: {sysctls}"
        )

    def has_other_sysctls(self, state: NodeState) -> bool:
        """Whether a sysctl has been changed: nothing tells of that, so it is looked at."""
        return bool(self.sysctls.diff(state.sysctls, self.sysctls.read(state.sysctls)).add)

    def has_other_addresses(self, state: NodeState) -> bool:
        """Whether a VIP is missing on lo, or the XDP program on an interface."""
        missing = self.addresses.diff(state.addresses, self.addresses.read()).add
        return bool(missing - self._refused) or self.xdp.modes() != self._modes

    def _step(
        self, outcome: Outcome, name: str, wanted: object | None, work: Callable[[], bool]
    ) -> None:
        """Runs a part. That it had anything to add for the value carried out last is a repair."""
        try:
            added = work()
        except (OSError, SubsystemError) as error:
            _log.warning("%s: %s", name, error)
            self._failed(outcome, name, str(error))
            return
        except Exception as error:  # noqa: BLE001 - told in full; the other subsystems must go on
            _log.exception("%s: a defect of this daemon", name)
            self._failed(outcome, name, f"a defect of this daemon, please report it: {error!r}")
            return
        if wanted is None:
            return
        if added and self._done.get(name) == wanted:
            _log.warning("%s: somebody changed what this daemon had set; set again", name)
            outcome.repaired.add(name)
        self._done[name] = wanted

    def _failed(self, outcome: Outcome, name: str, why: str) -> None:
        outcome.errors[name] = why
        self._done.pop(name, None)

    def _raise_sysctls(self, state: NodeState) -> bool:
        change = self.sysctls.diff(state.sysctls, self.sysctls.read(state.sysctls))
        self.sysctls.add(change.add)
        return bool(change.add)

    def _restore_sysctls(self, state: NodeState) -> int:
        change = self.sysctls.diff(state.sysctls, self.sysctls.read(state.sysctls))
        self.sysctls.remove(change.remove)
        return len(change.remove)

    def _add(self, state: NodeState, outcome: Outcome) -> bool:
        change = self.addresses.diff(state.addresses, self.addresses.read())
        outcome.refused = self.addresses.add(change.add)
        self._refused = outcome.refused.keys()
        return change.add > outcome.refused.keys()

    def _remove_addresses(self, state: NodeState) -> int:
        change = self.addresses.diff(state.addresses, self.addresses.read())
        self.addresses.remove(change.remove)
        return len(change.remove)

    def _renew(self, state: NodeState) -> bool:
        self.renew(state.director.announced)
        return False

    def _direct(self, state: NodeState, outcome: Outcome) -> bool:
        outcome.problems, added = self.xdp.hold(state.director)
        outcome.modes = self._modes = self.xdp.modes()
        return added and not outcome.problems  # what failed is tried again with every pass
