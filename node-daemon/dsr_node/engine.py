"""The loop: triggers -> node_state() -> subsystems in order -> report. Level-triggered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, ParamSpec, TypeVar

from dsr_api.plan import DSRPlan
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

from dsr_node.config import Config
from dsr_node.reporting import Pass, news, report_of, xdp_errors
from dsr_node.source import Snapshot, Source
from dsr_node.state.loss import HOLD, Plans, taken
from dsr_node.state.node_state import Memo, node_state
from dsr_node.state.report import Report, Reporter
from dsr_node.state.types import Facts, Network, NodeState
from dsr_node.subsystems import rtnl
from dsr_node.subsystems.base import SubsystemError
from dsr_node.subsystems.kernel import Kernel, Outcome
from dsr_node.subsystems.neighbourhood import Neighbourhood
from dsr_node.subsystems.network import nameservers, read_network
from dsr_node.subsystems.xdp.state import FOREVER
from dsr_node.subsystems.xdp.stats import Stats
from dsr_node.subsystems.xdp.sweep import Swept

DEBOUNCE = 0.02
"""Seconds that a trigger waits for others."""

SECOND = 1.0
"""Between two looks at what no event tells of: leases to renew, sysctls, flows to sweep."""

SWEEP = 10
"""Seconds between two sweeps of remembered flows."""

RESYNC = 30.0
"""Seconds between two passes without any trigger."""

SETTLE = 1.5
"""Seconds at most that a starting daemon waits for its neighbours' answers. Until then pinned maps
go on with what the daemon before has found, and must not be told that nobody is there."""

LEASE = 12.0
"""Seconds ahead for which a node with peers promises itself to answer ARP / NS; shorter than the
15 s after which another node takes a VIP over."""

_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_LOGGED = 20
"""Lines at most that a pass puts into the log."""

_GROUPS = (
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
)

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """What a daemon in a cluster knows besides the plans; each is asked anew in each pass.

    - `stale_peers`: the nodes whose Lease is stale.
    - `uplink`: the interface that the Node names, "" for none; the option wins over it.
    - `api_servers`: the addresses at which the API server is called.
    """

    stale_peers: Callable[[], frozenset[str]]
    uplink: Callable[[], str]
    api_servers: Callable[[], Set[str]]


class Engine:
    """One node's daemon, between a source of plans and those who report.

    `cluster` None: there are no Leases here, and what a node may announce is not bounded in time.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        reporters: Sequence[Reporter],
        cluster: Cluster | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._reporters = reporters
        self._cluster = cluster
        self._kernel = Kernel(config)
        self._neighbourhood = Neighbourhood(self.trigger)
        self._triggered = asyncio.Event()
        self._heard = asyncio.Event()
        self._plans: Plans | None = None
        self._snapshot = Snapshot()
        self._memo = Memo()
        self._network = Network()
        self._epoch = int(time.time() - time.monotonic())
        self._state = NodeState()
        self._carried = self._state
        self._xdp_errors: Mapping[str, str] = {}
        self._before: Pass | None = None
        self._reported = Report()
        self._repairs: Counter[str] = Counter()
        self._failures = 0
        self._one_at_a_time = asyncio.Lock()

    def trigger(self) -> None:
        """Something has changed: there will be a pass. May be called often."""
        self._triggered.set()

    async def run(self) -> NoReturn:
        """Until cancelled; the kernel stays as it is then."""
        events = rtnl.RtnlEvents(_GROUPS)
        loop = self._loop = asyncio.get_running_loop()
        loop.add_reader(events.fileno(), self._hear, events)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_source(), name="source")
                group.create_task(self._neighbourhood.run(), name="neighbourhood")
                group.create_task(self._passes(), name="passes")
                group.create_task(self._listen(), name="netlink")
                group.create_task(self._seconds(), name="seconds")
        finally:
            loop.remove_reader(events.fileno())
            events.close()
        raise AssertionError("the engine's tasks never end")

    # What others may look at.

    @property
    def plans(self) -> Mapping[str, DSRPlan]:
        """Those in force."""
        return self._plans.in_force if self._plans else {}

    @property
    def state(self) -> NodeState:
        """What the kernel should hold now."""
        return self._state

    @property
    def swept(self) -> Swept:
        """What the last sweep of remembered flows has found."""
        return self._kernel.swept

    async def stats(self) -> Stats:
        """The dataplane's counters. Raises OSError."""
        return await self._in_kernel(self._kernel.xdp.stats, self._state.director)

    # Triggers.

    def _hear(self, events: rtnl.RtnlEvents) -> None:
        if events.drain():
            self._heard.set()

    async def _listen(self) -> NoReturn:
        """After netlink events: a pass where they mean something to us. Most are of our own doing,
        and on a busy node of pods that come and go."""
        while True:
            await self._heard.wait()
            await asyncio.sleep(DEBOUNCE)
            self._heard.clear()
            with self._told():
                if await self._in_kernel(self._differs):
                    self.trigger()

    def _differs(self) -> bool:
        """Where XDP could not run, whatever happens to a link may have made room for it."""
        return (
            bool(self._xdp_errors)
            or read_network() != self._network
            or self._kernel.has_other_addresses(self._carried)
        )

    async def _read_source(self) -> None:
        async for snapshot in self._source.snapshots():
            self._snapshot = snapshot
            self._take()

    def _take(self) -> None:
        """Takes over the latest snapshot, or as much of it as may be believed now."""
        before = self._plans or Plans()
        now = self._loop.time()
        self._plans = taken(before, self._snapshot, now)
        if self._plans.held:
            if not before.held:
                _log.error("%s", self._plans.alarm)
            self._loop.call_later(max(self._plans.since + HOLD - now, SECOND), self._take)
        self.trigger()

    async def _seconds(self) -> NoReturn:
        """What is due without a trigger: leases, sysctls changed by hand, the sweep of flows."""
        count = 0
        while True:
            await asyncio.sleep(SECOND)
            count += 1
            with self._told():
                await self._in_kernel(self._each_second, sweep=count % SWEEP == 0)

    def _each_second(self, *, sweep: bool) -> None:
        announced = self._carried.director.announced
        leased = {vip: end for vip, end in announced.items() if end != FOREVER}
        if leased:
            self._kernel.renew(dict.fromkeys(leased, self._lease_until()))
        if self._kernel.has_other_sysctls(self._carried):
            self._loop.call_soon_threadsafe(self.trigger)
        if sweep:
            self._kernel.sweep()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """An error of work between passes is left to a pass, to report and to back off from."""
        try:
            yield
        except (OSError, SubsystemError) as error:
            if not self._failures:
                _log.warning("%s", error)
                self.trigger()

    async def _in_kernel(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking work, off the loop and one at a time."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(work, *args, **kwargs)

    # Passes.

    async def _passes(self) -> NoReturn:
        while self._plans is None:
            await self._next(RESYNC)
            if self._plans is None:
                self._tell(Report(errors={"source": "no plans have been read yet"}))
        await self._prepare()
        delay = 0.0
        while True:
            await self._next(delay)
            delay = await self._pass()

    async def _next(self, delay: float | None) -> None:
        """Waits for a trigger, at most `delay` seconds."""
        try:
            async with asyncio.timeout(delay):
                await self._triggered.wait()
        except TimeoutError:
            return
        await asyncio.sleep(DEBOUNCE)
        self._triggered.clear()

    async def _prepare(self) -> None:
        """What can be done before the neighbours have answered."""
        with self._told():
            await self._in_kernel(self._kernel.prepare, self._decide())
        try:
            async with asyncio.timeout(SETTLE):
                await self._neighbourhood.settle()
        except TimeoutError:
            _log.warning("not all neighbours have been asked within %.1f s", SETTLE)

    async def _pass(self) -> float:
        """One pass; seconds after which there must be another one."""
        begin = time.monotonic()
        plans, snapshot = self._plans or Plans(), self._snapshot
        self._triggered.clear()
        outcome = await self._carry_out()
        self._repairs.update(outcome.repaired)
        seconds = time.monotonic() - begin
        known = (self._state, self._network)
        self._report(
            Pass(self._config.node, plans, snapshot, *known, outcome, self._repairs.copy(), seconds)
        )
        self._failures = self._failures + 1 if outcome.errors else 0
        return _BACKOFF[min(self._failures, len(_BACKOFF)) - 1] if self._failures else RESYNC

    async def _carry_out(self) -> Outcome:
        try:
            state = self._decide()
        except OSError as error:
            _log.warning("network: %s", error)
            return Outcome(errors={"network": str(error)})
        outcome = await self._in_kernel(self._kernel.carry_out, state)
        self._carried = state
        errors = xdp_errors(outcome)
        if errors == self._xdp_errors:
            self._neighbourhood.announce(state.announcements)
        else:  # a VIP must not be announced where XDP does not run: the next pass knows
            self._xdp_errors = errors
            self.trigger()
        if self._neighbourhood.error:
            outcome.errors["neighbours"] = self._neighbourhood.error
        return outcome

    def _decide(self) -> NodeState:
        """node_state() of now, with the neighbourhood watching what it names."""
        network = read_network()
        if network != self._network:
            self._network = network
        cluster = self._cluster
        facts = Facts(
            node=self._config.node,
            network=self._network,
            uplink=self._config.uplink or (cluster.uplink() if cluster else ""),
            neighbours=self._neighbourhood.neighbours.known,
            stale_peers=cluster.stale_peers() if cluster else frozenset(),
            answers=self._neighbourhood.asker.answers,
            xdp_errors=self._xdp_errors,
            lease_until=self._lease_until(),
            epoch=self._epoch,
            vital=self._vital(),
        )
        plans = self._plans.in_force if self._plans else {}
        self._state = node_state(plans, facts, self._memo)
        self._neighbourhood.keep(self._state, self._network)
        return self._state

    def _vital(self) -> Mapping[str, str]:
        api_servers = self._cluster.api_servers() if self._cluster else ()
        return {
            **dict.fromkeys(nameservers(), "a DNS server of this node"),
            **dict.fromkeys(self._network.gateways, "this node's default gateway"),
            **dict.fromkeys(api_servers, "the API server"),
        }

    def _lease_until(self) -> int:
        return FOREVER if self._cluster is None else time.monotonic_ns() + int(LEASE * 1e9)

    def _report(self, this: Pass) -> None:
        report = report_of(this, self._before, self._reported)
        told = list(news(self._reported, report))
        for level, text in told[:_LOGGED]:
            _log.log(level, "%s", text)
        if len(told) > _LOGGED:
            _log.info("and %d more such lines; /state tells all", len(told) - _LOGGED)
        self._before, self._reported = this, report
        self._tell(report)

    def _tell(self, report: Report) -> None:
        for reporter in self._reporters:
            reporter.report(report)
