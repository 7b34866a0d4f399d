"""The demo: the product's whole job on this machine, and a proof for each thing it claims.

Run as `python -m lab.demo`; the exit status is 1 if a proof fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import click
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from lab import network, observe, snapshot
from lab.controlplane import ControlPlaneError
from lab.diagnosis import diagnosis
from lab.errors import LabError
from lab.laboratory import EXAMPLE, Lab
from lab.names import VIPS
from lab.node import Node
from lab.observe import Traffic, until, uplink_traffic
from lab.progress import ConsoleProgress
from lab.servers import BIG_BYTES
from lab.settings import lab_names
from lab.traffic import Load, Outcome

NAME = "demo"
REQUESTS = 200
DATAGRAMS = 100
RATE = 200.0
"""Requests a second while things go wrong."""
LONG = 30
"""Connections that stay open."""
NOTICE_SECONDS = 4.0
"""A dead backend is out of the tables after three missed answers, one a second, and some slack."""
FIRST_REPLY_SECONDS = 5.0
BACKENDS = 6
"""Three nodes, each with an IPv4 and an IPv6 address."""
DRAINED, KILLED = "rs2", "rs3"
MEGABYTE = 1_000_000


class Demo:
    """One run. `proofs` fills up: what was claimed, and whether it held."""

    def __init__(self, lab: Lab, console: Console) -> None:
        self.lab = lab
        self.proofs: list[tuple[str, bool]] = []
        self._console = console
        self._progress = ConsoleProgress(console)
        self._client = lab.nodes["client"]
        self._lbs = [each for each in lab.nodes.values() if each.member.role == "lb"]
        self._in_cluster = [each for each in lab.nodes.values() if each.member.in_cluster]

    def run(self) -> None:
        """All of it, in order."""
        self._title("A Kubernetes cluster, two LB nodes, three web servers and a client")
        self.lab.up(self._progress)
        with self._progress.step("all daemons report"):
            until("all daemons report", lambda: observe.all_report(self.lab), 30)
        before = self._snapshots()
        self._title("kubectl apply -f examples/web.yaml")
        self._apply()
        self._title("Requests in, replies past the load balancer")
        self._serve()
        self._title(f"Drain {DRAINED} while traffic goes")
        self._drain()
        self._title(f"Cut the power of {KILLED} while traffic goes")
        self._kill()
        self._title("kubectl delete -f examples/web.yaml")
        self._delete(before)
        self._title("Uninstall: dsr-node --cleanup on every node, as the chart's hook does it")
        self._uninstall(before)

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold cyan]{text}[/bold cyan]")

    def prove(self, claim: str, holds: bool, found: str) -> None:  # noqa: FBT001  the result itself
        """Note a proof and show what was found."""
        self.proofs.append((claim, holds))
        mark = "[bold green]PROVEN[/bold green]" if holds else "[bold red]FAILED[/bold red]"
        self._console.print(f"  {mark} {claim} [dim]({found})[/dim]")

    def _show(self, *argv: str) -> None:
        self._console.print(f"  [dim]$ kubectl {' '.join(argv)}[/dim]")
        self._console.print(self.lab.kubectl(*argv).rstrip(), highlight=False, soft_wrap=True)

    # The acts

    def _apply(self) -> None:
        waiting = Load(self._client, "http", VIPS[:1], rate=20)
        with self._progress.step("apply, and wait until dsr/web is Ready"):
            # The first request is out, unanswered, before there is anything to answer it.
            until("a request is on its way", self._asks_for_vip, 10)
            started = time.time()
            self.lab.kubectl("apply", "-f", str(EXAMPLE))
            self.lab.kubectl("wait", "--for=condition=Ready", "dsr/web", "--timeout=30s")
            ready = time.time() - started
        first = waiting.stop().first_answer
        took = first - started if first else float("inf")
        self._show("get", "dsr", "-o", "wide")
        self._show("get", "dsrnode")
        claim = f"apply to first reply within {FIRST_REPLY_SECONDS:.0f} s"
        found = f"first reply after {took:.2f} s, Ready after {ready:.2f} s"
        self.prove(claim, took < FIRST_REPLY_SECONDS, found)

    def _asks_for_vip(self) -> bool:
        return VIPS[0] in self._client.run(["ip", "neigh", "show"])

    def _serve(self) -> None:
        with self._progress.step(f"{REQUESTS} HTTP requests and {DATAGRAMS} datagrams"):
            options = {"rate": RATE, "count": REQUESTS}
            http = Load(self._client, "http", VIPS, **options).wait(60)
            options["count"] = DATAGRAMS
            udp = Load(self._client, "udp", VIPS, **options).wait(60)
        self._requests_table({"HTTP": http, "UDP": udp})
        backends = set(http.by_backend)
        served = http.answered == REQUESTS and udp.answered == DATAGRAMS
        both = all(http.by_address[each] and udp.by_address[each] for each in VIPS)
        found = f"{http.failed + udp.failed} failed of {http.asked + udp.asked}"
        self.prove("IPv4 and IPv6, TCP and UDP are served", served and both, found)
        web = {each for each, node in self.lab.nodes.items() if node.member.role == "web"}
        self.prove("all backends have their share", backends == web, ", ".join(sorted(backends)))
        self._download()

    def _requests_table(self, outcomes: dict[str, Outcome]) -> None:
        table = Table("", "asked", "answered", "p50 ms", "p99 ms", "by backend", box=None)
        for name, each in outcomes.items():
            shares = "  ".join(f"{b} {n}" for b, n in sorted(each.by_backend.items()))
            times = [f"{each.percentile(percent):.1f}" for percent in (50, 99)]
            table.add_row(name, str(each.asked), str(each.answered), *times, shares)
        self._console.print(table)
        note = "UDP keeps to the backend a slot had first for a while: nothing marks its beginning"
        self._console.print(f"  [dim]{note}[/dim]")

    def _download(self) -> None:
        nodes = {"client": [self._client], "LB nodes": self._lbs}
        nodes["backends"] = [each for each in self._in_cluster if each.member.role == "web"]
        before = {name: _total(each) for name, each in nodes.items()}
        with self._progress.step(f"{BIG_BYTES // MEGABYTE} MB through each VIP"):
            delivered = [self._fetch(each) for each in VIPS]
        through = {name: _total(each) - before[name] for name, each in nodes.items()}
        table = Table("uplink of", "received MB", "sent MB", box=None)
        for name, each in through.items():
            megabytes = [f"{count / MEGABYTE:.2f}" for count in (each.received, each.sent)]
            table.add_row(name, *megabytes)
        self._console.print(table)
        whole = sum(delivered)
        self.prove("the whole file arrives", whole == 2 * BIG_BYTES, f"{whole} bytes")
        out = through["LB nodes"].sent
        found = f"LB nodes sent {out / whole:.2%} of what the client got: requests and ACKs"
        self.prove("replies do not pass the LB nodes", 0 < out < whole / 20, found)

    def _fetch(self, vip: str) -> int:
        url = f"http://[{vip}]/big" if ":" in vip else f"http://{vip}/big"
        argv = ["curl", "--silent", "--show-error", "--fail", "--globoff", "--max-time", "30"]
        return int(self._client.run([*argv, "-o", "/dev/null", "-w", "%{size_download}", url]))

    def _drain(self) -> None:
        load = Load(self._client, "http", VIPS, rate=RATE)
        long = Load(self._client, "long", VIPS, connections=LONG)
        with self._progress.step(f"node {DRAINED}: weight 0, under {RATE:.0f} requests/s"):
            until("all connections are open", self._long_are_open, 20)
            self._weight(DRAINED, "0")
            until(f"{DRAINED} drains", lambda: self._counts() == (BACKENDS, BACKENDS - 2, 2), 15)
            until("the LB nodes have it", self._programmed, 15)
            outcome, held = load.stop(), long.stop()
            options = {"rate": RATE, "count": REQUESTS}
            after = Load(self._client, "http", VIPS, **options).wait(60)
        failed = outcome.failed + after.failed
        asked = outcome.asked + after.asked
        self.prove("a drain fails no request", failed == 0, f"{failed} of {asked} failed")
        on_it = held.by_backend.get(DRAINED, 0)
        found = f"{held.failed} of {LONG} broken; {on_it} answers came from {DRAINED}"
        self.prove("and breaks no open connection", not held.failed and on_it > 0, found)
        new = after.by_backend.get(DRAINED, 0)
        self.prove(f"{DRAINED} gets no new ones", new == 0, f"{new} of {after.asked}")
        self._weight(DRAINED, "1")
        until(f"{DRAINED} is back", lambda: self._counts() == (BACKENDS, BACKENDS, 0), 15)

    def _long_are_open(self) -> bool:
        listed = self._client.run(["ss", "-Htn", "state", "established"])
        return len(listed.splitlines()) >= LONG

    def _weight(self, node: str, weight: str) -> None:
        self.lab.kubectl(
            "annotate", "node", node, "--overwrite", f"dsr-operator.io/weight={weight}"
        )

    def _counts(self) -> tuple[int, int, int]:
        found = observe.service(self.lab, "web").status.backends
        return found.total, found.healthy, found.draining

    def _programmed(self) -> bool:
        found = observe.service(self.lab, "web").status.load_balancers
        return found.programmed == found.total == len(self._lbs)

    def _kill(self) -> None:
        load = Load(self._client, "http", VIPS, rate=RATE)
        with self._progress.step(f"{KILLED} dies, under {RATE:.0f} requests/s"):
            until("requests are answered", lambda: uplink_traffic(self._client).sent, 10)
            time.sleep(1)
            killed = time.time()
            self.lab.kill_part(KILLED)
            # What is measured is what happens in this time; there is no event to wait for.
            time.sleep(NOTICE_SECONDS + 1)
            outcome = load.stop()
        last = max((at - killed for at, _ in outcome.failures), default=0.0)
        self._console.print(
            f"  {outcome.failed} of {outcome.asked} requests failed: those that went to the dead "
            f"backend in the {last:.1f} s until it was noticed"
        )
        claim = f"a dead backend is out of the way within {NOTICE_SECONDS:.0f} s"
        self.prove(claim, last <= NOTICE_SECONDS, f"last failure {last:.1f} s after its death")
        options = {"rate": RATE, "count": REQUESTS}
        after = Load(self._client, "http", VIPS, **options).wait(60)
        self.prove("after that nothing fails", after.failed == 0, f"{after.failed} failed")
        self._show("get", "dsr", "-o", "wide")
        with self._progress.step(f"{KILLED} boots, and serves again"):
            self.lab.restart_part(KILLED)
            until("all backends are healthy", lambda: self._counts() == (BACKENDS, BACKENDS, 0), 30)
            until(f"{KILLED} answers", lambda: self._answers(KILLED), 30)

    def _answers(self, backend: str) -> bool:
        outcome = Load(self._client, "http", VIPS, rate=RATE, count=50).wait(30)
        return bool(outcome.by_backend.get(backend))

    def _delete(self, before: dict[str, snapshot.Snapshot]) -> None:
        with self._progress.step("delete, and wait until it is gone"):
            started = time.monotonic()
            self.lab.kubectl("delete", "-f", str(EXAMPLE), "--wait", "--timeout=60s")
            took = time.monotonic() - started
        claim = "no VIP, no sysctl, no XDP program is left of it"
        found = f"{took:.1f} s after the delete; the daemons keep their maps, empty"
        self._prove_same(claim, found, before, snapshot.without_maps)

    def _uninstall(self, before: dict[str, snapshot.Snapshot]) -> None:
        with self._progress.step("clean up"):
            for node in self._in_cluster:
                self.lab.clean_up(node.member.name)
        self._prove_same("every kernel is as it was", "bpffs, too", before, lambda held: held)

    def _prove_same(
        self,
        claim: str,
        found: str,
        before: dict[str, snapshot.Snapshot],
        looking_at: Callable[[snapshot.Snapshot], snapshot.Snapshot],
    ) -> None:
        after = self._snapshots()
        changes = [
            f"{name}: {change}"
            for name in before
            for change in snapshot.differences(looking_at(before[name]), looking_at(after[name]))
        ]
        for each in changes:
            self._console.print(f"  [red]{each}[/red]")
        compared = sum(len(looking_at(each)) for each in after.values())
        self.prove(claim, not changes, f"{compared} settings of {len(after)} nodes equal; {found}")

    def _snapshots(self) -> dict[str, snapshot.Snapshot]:
        return {each.member.name: snapshot.take(each) for each in self._in_cluster}


def _total(nodes: Sequence[Node]) -> Traffic:
    return sum((uplink_traffic(each) for each in nodes), Traffic(0, 0))


def _leave(lab: Lab, console: Console) -> None:
    lab.heal()
    console.print(
        Panel(
            f"The lab is up. DSR_LAB={NAME} ./lab/lab --help tells what you can do, such as\n\n"
            f"  export DSR_LAB={NAME}\n"
            "  export KUBECONFIG=$(./lab/lab kubeconfig)\n"
            "  kubectl apply -f examples/web.yaml && kubectl get dsr -o wide -w\n"
            f"  ./lab/lab exec client -- curl -s http://{VIPS[0]}/\n"
            "  ./lab/lab kill lb1; ./lab/lab restart lb1; ./lab/lab logs rs1 -f\n"
            "  ./lab/lab down",
            title="KEEP=1",
        )
    )


def _down(lab: Lab, demo: Demo, console: Console) -> None:
    lab.down()
    left = [lab.home.directory.exists(), network.has_host_link(lab.home.name)]
    console.print()
    demo.prove("nothing of the lab is left", not any(left), "processes, links, mounts, files")


def _run(console: Console, *, keep: bool) -> Demo:
    if NAME in lab_names():
        console.print("[dim]a lab of an earlier run is there; it goes first[/dim]")
        Lab.open(NAME).down()
    lab = Lab.create(NAME, lbs=2, backends=3)
    demo = Demo(lab, console)
    try:
        demo.run()
    except LabError:
        for title, text in diagnosis(lab):
            console.print(f"[dim]--- {title}[/dim]")
            console.print(text, markup=False)
        raise
    finally:
        if keep:
            _leave(lab, console)
        else:
            _down(lab, demo, console)
    return demo


@click.command()
@click.option("--keep", is_flag=True, help="leave the lab up")
def main(keep: bool) -> None:  # noqa: FBT001  click's way
    """The whole job, shown and proven."""
    console = Console(highlight=False)
    console.print(Panel("Direct Server Return, by one kubectl apply", style="bold", expand=False))
    started = time.monotonic()
    try:
        demo = _run(console, keep=keep)
    except (LabError, ControlPlaneError) as error:
        console.print(f"\n[bold red]The demo broke off:[/bold red] {error}", markup=True)
        sys.exit(1)
    failed = [claim for claim, holds in demo.proofs if not holds]
    took = f"{time.monotonic() - started:.0f} s"
    if failed:
        console.print(f"\n[bold red]NOT proven:[/bold red] {'; '.join(failed)}. ({took})")
        sys.exit(1)
    proven = "; ".join(claim for claim, _ in demo.proofs)
    console.print(f"\n[bold green]Proven in {took}:[/bold green] {proven}.")


if __name__ == "__main__":
    main()
