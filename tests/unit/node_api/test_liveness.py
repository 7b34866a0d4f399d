"""Who is stale, seen with a clock of our own. Renewals come each 5 s, a Lease lasts 15 s."""

from __future__ import annotations

from dsr_node.api.peers import Liveness

NOBODY: frozenset[str] = frozenset()


class Cluster:
    """Nodes that renew each 5 s while they are alive and the API is there."""

    def __init__(self, *nodes: str) -> None:
        self.liveness = Liveness(nodes[0])
        self.nodes = set(nodes)
        self.dead: set[str] = set()
        self.api = True
        self.now = 1000.0
        self.renewals: dict[str, str] = {}

    def run(self, seconds: int) -> frozenset[str]:
        """The nodes that were stale at any time meanwhile."""
        stale: set[str] = set()
        for _ in range(seconds * 2):
            self.now += 0.5
            if self.api and self.now % 5 == 0:
                self.renewals |= {n: str(self.now) for n in self.nodes - self.dead}
            if self.api:
                self.liveness.seen(self.renewals, self.now)
            stale |= self.liveness.stale(self.now)
        return frozenset(stale)


def test_all_alive() -> None:
    assert Cluster("lb1", "lb2").run(120) == NOBODY


def test_a_silent_peer_is_stale_after_the_lease_duration_and_comes_back() -> None:
    cluster = Cluster("lb1", "lb2", "lb3")
    cluster.run(60)
    cluster.dead.add("lb2")
    assert cluster.run(14) == NOBODY
    assert cluster.run(10) == {"lb2"}
    cluster.dead.clear()
    cluster.run(6)
    assert cluster.run(30) == NOBODY


def test_an_outage_makes_nobody_stale_neither_while_it_lasts_nor_after() -> None:
    cluster = Cluster("lb1", "lb2")
    cluster.run(61)
    cluster.api = False
    assert cluster.run(90) == NOBODY
    cluster.api = True
    assert cluster.run(60) == NOBODY


def test_a_peer_that_died_in_the_outage_is_stale_one_lease_duration_after_its_end() -> None:
    cluster = Cluster("lb1", "lb2")
    cluster.run(60)
    cluster.api = False
    cluster.dead.add("lb2")
    cluster.run(60)
    cluster.api = True
    assert cluster.run(15) == NOBODY
    assert cluster.run(15) == {"lb2"}


def test_a_daemon_that_has_just_started_judges_nobody_for_one_lease_duration() -> None:
    cluster = Cluster("lb1", "lb2")
    cluster.renewals = {"lb2": "years ago"}
    cluster.dead.add("lb2")
    assert cluster.run(15) == NOBODY
    assert cluster.run(15) == {"lb2"}


def test_while_our_own_renewals_do_not_come_back_nobody_is_judged() -> None:
    cluster = Cluster("lb1", "lb2")
    cluster.run(60)
    cluster.dead |= {"lb1", "lb2"}
    assert cluster.run(120) == NOBODY


def test_a_deleted_lease_goes_stale_and_a_never_seen_one_does_not() -> None:
    cluster = Cluster("lb1", "lb2")
    cluster.run(60)
    cluster.nodes.remove("lb2")
    del cluster.renewals["lb2"]
    assert cluster.run(30) == {"lb2"}


def test_clocks_of_peers_do_not_matter() -> None:
    liveness = Liveness("lb1")
    for second in range(0, 60, 5):
        liveness.seen({"lb1": f"a{second}", "lb2": f"1970-{second}"}, float(second))
        assert liveness.stale(float(second)) == NOBODY
