"""One lab: a cluster in the hub, and machines around it that run what the chart says."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import chart, cluster_objects, names, network, servers
from lab.api import Api, ApiError
from lab.cluster import DAEMON, OPERATOR, PARTS, Cluster
from lab.controlplane.process import Daemon
from lab.errors import LabError
from lab.names import Home, Member
from lab.namespaces import environment
from lab.node import NamespaceNode, Node, Program
from lab.progress import Progress
from lab.settings import Settings

BUILT = chart.ROOT / "node-daemon" / "dsr_node" / "built"
EXAMPLE = chart.ROOT / "examples" / "web.yaml"
KEEPER = "keeper"
READY_TIMEOUT = 60
"""Seconds for the demo service to become Ready."""
GRACE = 5.0
"""Seconds for the keeper to end."""


@dataclass(frozen=True)
class PartStatus:
    """One part of a lab, and whether it runs."""

    name: str
    running: bool
    note: str = ""


class Lab:
    """A lab that `create` has made or `open` has found. All its state is on disk."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self._host_link = settings.host_link
        self._hub = settings.hub(home)
        self._nodes = settings.nodes(home)
        self._cluster = Cluster(home, settings, self._hub)
        self._keeper = Daemon(home.pid_file(KEEPER), home.log(KEEPER))

    @classmethod
    def create(cls, name: str, *, lbs: int, backends: int) -> Lab:
        """A new lab, not up yet. Raises LabError if there is one of that name."""
        require_built()
        home = Home(names.check_name(name))
        return cls(home, Settings.create(home, lbs, backends))

    @classmethod
    def open(cls, name: str) -> Lab:
        """The lab of that name. Raises LabError if there is none."""
        home = Home(names.check_name(name))
        return cls(home, Settings.load(home))

    # What it is

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All members but the hub, by name."""
        return {each.member.name: each for each in self._nodes}

    @property
    def api(self) -> Api:
        """The API as an administrator."""
        return self._cluster.api

    def log(self, part: str) -> Path:
        """The log of a part; that of a node is its daemon's. Raises LabError for no such part."""
        for each in PARTS:
            if part == each:
                return self._cluster.plane.log(each)
        if part == KEEPER:
            return self._keeper.log
        if part == OPERATOR:
            return self._hub.daemon(OPERATOR).log
        node, program = self._node_part(part)
        return node.log(program or DAEMON)

    def status(self) -> list[PartStatus]:
        """What runs and what does not."""
        parts = [PartStatus(each, self._cluster.plane.running(each)) for each in PARTS]
        parts.append(PartStatus(OPERATOR, self._hub.daemon(OPERATOR).pid() is not None))
        parts.append(PartStatus(KEEPER, self._keeper.pid() is not None))
        for node in self._nodes:
            member = node.member
            parts.append(PartStatus(member.name, node.running, f"{member.ipv4} {member.ipv6}"))
            parts += [
                PartStatus(f"{member.name}/{each}", node.runs(each))
                for each in _program_names(member)
            ]
        return parts

    # Up and down

    def up(self, progress: Progress) -> None:
        """Bring all up: ten seconds. Raises LabError; `down` then takes away what is there."""
        with progress.step("machines, bridge and cables"):
            self._hub.start()
            network.build_hub(self._hub, self.home.name, self._host_link)
            for node in self._nodes:
                node.start()
        with progress.step("control plane"):
            self._cluster.start()
        with progress.step("Nodes, and the chart's objects"):
            api = self.api
            for member in self._in_cluster():
                cluster_objects.register(api, member)
            self._cluster.apply_chart()
            self._cluster.give_operator_account()
            for member in self._in_cluster():
                self._cluster.give_daemon_account(member, self.nodes[member.name].run_directory)
        with progress.step("operator, node daemons and web servers"):
            self.start_part(KEEPER)
            self.start_part(OPERATOR)
            for node in self._nodes:
                self._start_programs(node)

    def down(self) -> None:
        """Take all away, whatever of it there is; only processes that this lab started end."""
        self._keeper.send(signal.SIGTERM)
        if not self._keeper.wait(GRACE):
            raise LabError(f"the keeper (pid {self._keeper.pid()}) does not end by SIGTERM")
        for node in self._nodes:
            node.kill()
        self._cluster.kill()
        network.remove_host_link(self.home.name)
        self._hub.kill()
        for each in (*(node.namespaces for node in self._nodes), self._hub):
            each.await_end()
        shutil.rmtree(self.home.directory)

    def demo_service(self, progress: Progress) -> None:
        """Apply examples/web.yaml, and wait until it is Ready."""
        with progress.step(f"{EXAMPLE.relative_to(chart.ROOT)}, until dsr/web is Ready"):
            self.kubectl("apply", "-f", str(EXAMPLE))
            timeout = f"--timeout={READY_TIMEOUT}s"
            self.kubectl("wait", "--for=condition=Ready", "dsr/web", timeout)

    # Parts

    def kill_part(self, part: str) -> None:
        """SIGKILL to one part; a node dies whole, as by a power cut. Raises LabError."""
        for each in PARTS:
            if part == each:
                self._cluster.plane.kill(each)
                return
        if part == KEEPER:
            self._keeper.send(signal.SIGKILL)
            self._keeper.wait(GRACE)
        elif part == OPERATOR:
            self._hub.kill_daemon(OPERATOR)
        else:
            node, program = self._node_part(part)
            node.kill_program(program) if program else node.kill()

    def start_part(self, part: str) -> None:
        """Start one part that does not run; a node boots with all its programs. Raises LabError."""
        if part in PARTS:
            self._cluster.start()
        elif part == KEEPER:
            argv = [sys.executable, "-m", "lab.keeper", self.home.name]
            self._keeper.start(argv, _host_environment())
        elif part == OPERATOR:
            program = self._cluster.operator_program()
            self._hub.start_daemon(OPERATOR, program.argv, program.environment)
        else:
            node, name = self._node_part(part)
            if not name:
                self._boot(node)
            else:
                programs = {each.name: each for each in self._programs(node.member)}
                node.start_program(programs[name])

    def heal(self) -> None:
        """Start every part that does not run."""
        for part in self.status():
            if not part.running:
                self.start_part(part.name)

    def restart_part(self, part: str) -> None:
        """Kill it if it runs, and start it."""
        self.kill_part(part)
        self.start_part(part)

    def clean_up(self, name: str) -> None:
        """What the chart's uninstall hook makes a node do: end its daemon, undo all it did."""
        node, _ = self._node_part(name)
        node.kill_program(DAEMON)
        program = self._cluster.daemon_program(node.member)
        node.run([*program.argv, "--cleanup"])

    def enter(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command on a node, with the caller's terminal."""
        found, _ = self._node_part(node)
        return found.namespaces.enter_all(argv)

    def kubectl(self, *argv: str, stdin: str = "") -> str:
        """What kubectl prints, run on the host. Raises LabError with its complaint if it fails."""
        return network.run(self.kubectl_command(*argv), stdin)

    def kubectl_command(self, *argv: str) -> list[str]:
        """The command line of a kubectl that talks to this lab from the host."""
        return self._cluster.kubectl(*argv)

    # How

    def _in_cluster(self) -> list[Member]:
        return [each.member for each in self._nodes if each.member.in_cluster]

    def _boot(self, node: Node) -> None:
        node.start()
        if node.member.in_cluster:
            try:
                cluster_objects.register(self.api, node.member)
                # A token is bound to one Node object: a Node made anew takes a new one.
                self._cluster.give_daemon_account(node.member, node.run_directory)
            except ApiError as error:
                # A machine boots without its API server, too; the keeper goes on trying.
                print(f"{node.member.name} is not registered: {error}", file=sys.stderr)
        self._start_programs(node)

    def _start_programs(self, node: Node) -> None:
        for program in self._programs(node.member):
            node.start_program(program)

    def _programs(self, member: Member) -> list[Program]:
        programs = [self._cluster.daemon_program(member)] if member.in_cluster else []
        if member.role == "web":
            servers.prepare(member, self.home.node(member.name) / "var-lib")
            programs += servers.servers(member)
        return programs

    def _node_part(self, part: str) -> tuple[NamespaceNode, str]:
        """A node, and a program on it or "", from NODE or NODE/PROGRAM."""
        name, _, program = part.partition("/")
        for node in self._nodes:
            if node.member.name == name and program in ("", *_program_names(node.member)):
                return node, program
        known = ", ".join(each.name for each in self.status())
        raise LabError(f"there is no part {part!r} in lab {self.home.name}; there are {known}")


def require_built() -> None:
    """Raise LabError, naming the make target, if the dataplane is not built."""
    if not list(BUILT.glob("*.o")) or not list(BUILT.glob("*.so")):
        raise LabError(f"{BUILT} lacks the dataplane: `make build` makes it")


def _program_names(member: Member) -> tuple[str, ...]:
    match member.role:
        case "client":
            return ()
        case "lb":
            return (DAEMON,)
        case "web":
            return (DAEMON, "web", "echo")


def _host_environment() -> dict[str, str]:
    kept = {each: os.environ[each] for each in ("HOME", "XDG_STATE_HOME") if each in os.environ}
    return environment() | kept
