"""The command `lab`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.table import Table

from lab import names
from lab.controlplane import ControlPlaneError
from lab.errors import LabError
from lab.laboratory import Lab
from lab.namespaces import environment, program
from lab.progress import ConsoleProgress
from lab.settings import lab_names

PASS_THROUGH = {
    "ignore_unknown_options": True,
    "help_option_names": [],
    "allow_interspersed_args": False,
}

name_option = click.option(
    "--name", default=names.DEFAULT_NAME, envvar="DSR_LAB", show_default=True, help="which lab"
)


class Commands(click.Group):
    """All commands; an error that the user can act upon is one line, not a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run one."""
        try:
            return super().invoke(ctx)
        except (LabError, ControlPlaneError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands)
def cli() -> None:
    """A laboratory on one machine: a Kubernetes control plane, LB nodes, web servers, a client.

    Labs of different names run side by side; DSR_LAB names one for all commands.
    """


@cli.command()
@name_option
@click.option("--lbs", default=2, show_default=True, help="LB nodes lb1, lb2, ...")
@click.option("--backends", default=3, show_default=True, help="backend nodes rs1, rs2, ...")
@click.option("--demo-service/--no-demo-service", default=True, help="apply examples/web.yaml")
def up(name: str, lbs: int, backends: int, demo_service: bool) -> None:  # noqa: FBT001  click's way
    """Bring a lab up."""
    progress = ConsoleProgress(Console(stderr=True))
    lab = Lab.create(name, lbs=lbs, backends=backends)
    try:
        lab.up(progress)
        if demo_service:
            lab.demo_service(progress)
    except (LabError, ControlPlaneError) as error:
        raise LabError(
            f"{error}\n`lab logs` tells more; `lab down` takes away what is up"
        ) from error
    click.echo(f"./lab/lab exec client -- curl -s http://{names.VIPS[0]}/", err=True)


@cli.command()
@name_option
def down(name: str) -> None:
    """Take a lab away, whatever is left of it."""
    if name in lab_names():
        Lab.open(name).down()


@cli.command()
@name_option
def status(name: str) -> None:
    """What runs and what does not."""
    others = [each for each in lab_names() if each != name]
    parts = Lab.open(name).status()
    table = Table("part", "", "address", title=f"lab {name}", title_justify="left")
    for part in parts:
        running = "[green]running[/green]" if part.running else "[red]down[/red]"
        table.add_row(part.name, running, part.note)
    Console().print(table)
    if others:
        click.echo(f"other labs: {', '.join(others)}")
    sys.exit(0 if all(part.running for part in parts) else 1)


@cli.command()
@name_option
def kubeconfig(name: str) -> None:
    """Print the path of the administrator's kubeconfig, good on this host."""
    click.echo(Lab.open(name).home.kubeconfig)


@cli.command(context_settings=PASS_THROUGH)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(arguments: Sequence[str]) -> None:
    """kubectl against the lab (DSR_LAB names another); everything is passed on."""
    lab = Lab.open(os.environ.get("DSR_LAB", names.DEFAULT_NAME))
    _become(lab.kubectl_command(*arguments))


@cli.command(name="exec", context_settings={"allow_interspersed_args": False})
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, node: str, command: Sequence[str]) -> None:
    """Run a command on a node: exec NODE -- CMD..."""
    argv = Lab.open(name).enter(node, command[1:] if command[0] == "--" else command)
    _become(argv, environment())


@cli.command()
@name_option
@click.option("-f", "--follow", is_flag=True, help="go on as it grows")
@click.argument("part")
def logs(name: str, part: str, follow: bool) -> None:  # noqa: FBT001  click's way
    """The log of a part: NODE (its daemon), NODE/web, operator, apiserver, controller-manager."""
    path = Lab.open(name).log(part)
    if not path.exists():
        raise LabError(f"{part} has not said anything yet")
    _become([program("tail"), "-n", "+1", *(["-F"] if follow else []), str(path)])


@cli.command()
@name_option
@click.option("--daemon", is_flag=True, help="the node's daemon alone")
@click.argument("part")
def kill(name: str, part: str, daemon: bool) -> None:  # noqa: FBT001  click's way
    """SIGKILL to one part: NODE (all of it, and its cable), NODE/daemon, NODE/web, operator, ..."""
    Lab.open(name).kill_part(f"{part}/daemon" if daemon else part)


@cli.command()
@name_option
@click.option("--daemon", is_flag=True, help="the node's daemon alone")
@click.argument("part")
def restart(name: str, part: str, daemon: bool) -> None:  # noqa: FBT001  click's way
    """Kill one part if it runs, and start it; a node boots on the disk it had."""
    Lab.open(name).restart_part(f"{part}/daemon" if daemon else part)


def _become(argv: Sequence[str], variables: Mapping[str, str] = os.environ) -> None:
    sys.stdout.flush()
    os.execvpe(argv[0], list(argv), variables)  # noqa: S606  no shell is meant to come between


if __name__ == "__main__":
    cli(prog_name="lab")
