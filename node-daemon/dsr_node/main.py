"""The command line of the node daemon: reads options, puts the parts together, nothing else."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dsr_node.api.access import AccessError
from dsr_node.api.report import identity
from dsr_node.api.run import connect
from dsr_node.config import Config
from dsr_node.engine import Cluster, Engine
from dsr_node.observe.endpoint import Endpoint
from dsr_node.observe.sight import Passes, Sight
from dsr_node.source.directory import DirectorySource
from dsr_node.subsystems.base import SubsystemError
from dsr_node.subsystems.kernel import Kernel
from dsr_node.subsystems.xdp.limits import Limits
from dsr_node.table.word import MAX_ID

_PATH = click.Path(path_type=Path)
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_log = logging.getLogger("dsr_node")


_MOUNTED_SYS_NET = Path("/host/proc/sys/net")
"""Where the chart mounts the host's /proc/sys/net, as nothing can be mounted inside /proc."""


def _sys_net() -> Path:
    return _MOUNTED_SYS_NET if _MOUNTED_SYS_NET.is_dir() else Config.sys_net


def limits_of(command: Callable[..., None]) -> Callable[..., None]:
    """Options --max-frontends, --max-backends, ...: one for each of Limits, as one argument."""

    @wraps(command)
    def with_limits(**options: Any) -> None:
        limits = Limits(**{each.name: options.pop(f"max_{each.name}") for each in fields(Limits)})
        command(limits=limits, **options)

    for each in reversed(fields(Limits)):
        with_limits = click.option(
            f"--max-{each.name}",
            envvar=f"DSR_MAX_{each.name.upper()}",
            type=click.IntRange(2, MAX_ID + 1 if each.name == "backends" else 1 << 24),
            default=each.default,
            show_default=True,
            help="Room in the maps of XDP. Pinned maps keep theirs until --cleanup.",
        )(with_limits)
    return with_limits


@click.command()
@click.option("--node-name", envvar="NODE_NAME", help="This node's name. Default: the host name.")
@click.option(
    "--plans", type=_DIRECTORY, help="Take plans from DSRPlan files here; no cluster needed."
)
@click.option("--cleanup", is_flag=True, help="Undo all that the daemon did to this kernel; exit.")
@click.option("--state-dir", type=_PATH, default=Config.state_dir, show_default=True)
@click.option("--bpffs", type=_PATH, default=Config.bpffs, show_default=True)
@click.option(
    "--sys-net",
    type=_PATH,
    default=_sys_net,
    help="Default: /proc/sys/net, or the hostPath of the chart.",
)
@click.option(
    "--uplink",
    default="",
    help="The interface of VIP traffic. Default: what the Node's annotation names, else by route.",
)
@click.option(
    "--listen-address",
    envvar="DSR_LISTEN_ADDRESS",
    default=Config.listen_address,
    show_default=True,
    help="Of /metrics, /healthz, /readyz, /state. All addresses would include the VIPs.",
)
@click.option(
    "--listen-port",
    type=click.IntRange(1, 65535),
    envvar="DSR_LISTEN_PORT",
    default=Config.listen_port,
    show_default=True,
)
@click.option("--kubeconfig", type=_PATH, envvar="KUBECONFIG", help="Default: service account.")
@click.option("--namespace", envvar="POD_NAMESPACE", default="dsr-system", show_default=True)
@limits_of
@click.option("--log-level", default="info", show_default=True)
def main(*, node_name: str | None, cleanup: bool, log_level: str, **options: object) -> None:
    """Makes this node direct and serve the VIPs of DSRServices."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    config = Config(node=node_name or os.uname().nodename, **options)  # type: ignore[arg-type] # click has checked the types
    try:
        with _alone(config.state_dir):
            if cleanup:
                click.echo(Kernel(config).clean_up())
            else:
                asyncio.run(_run(config))
    except (OSError, SubsystemError, AccessError) as error:
        raise click.ClickException(str(error)) from error
    if cleanup:
        config.node_on_disk.unlink(missing_ok=True)
        _remove_if_empty(config.state_dir)


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """One daemon a kernel: two would undo each other's work. Raises click.ClickException."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(
                f"another dsr-node runs with {state_dir}; stop it first"
            ) from None
        yield


def _remove_if_empty(state_dir: Path) -> None:
    (state_dir / "lock").unlink()
    if any(state_dir.iterdir()):
        return
    try:
        state_dir.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:  # in a pod it is where the node's directory is mounted
            raise


async def _run(config: Config) -> None:
    """Runs until SIGTERM or SIGINT, which leave the kernel as it is: traffic goes on."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine always runs in a task
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await (_from_files(config, config.plans) if config.plans else _from_api(config))
    except asyncio.CancelledError:
        _log.info("stopped; the kernel goes on forwarding")


async def _from_files(config: Config, plans: Path) -> None:
    passes = Passes()
    engine = Engine(config, DirectorySource(plans), [passes])
    endpoint = Endpoint(Sight(config.node, identity(), engine, passes))
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.run(), name="engine")
        group.create_task(endpoint.run(config.listen_address, config.listen_port), name="endpoint")


async def _from_api(config: Config) -> None:
    connection = connect(config)
    passes = Passes()
    cluster = Cluster(
        stale_peers=lambda: connection.peers.stale,
        uplink=lambda: connection.own.uplink,
        api_servers=lambda: connection.client.addresses,
    )
    engine = Engine(config, connection.source, [passes, connection.reporter], cluster)
    endpoint = Endpoint(Sight(config.node, identity(), engine, passes, connection.sight()))
    async with asyncio.TaskGroup() as group:
        group.create_task(endpoint.run(config.listen_address, config.listen_port), name="endpoint")
        group.create_task(connection.run(engine.trigger), name="API")
        await connection.own.settled()  # a pass must not move VIPs to an uplink that is not meant
        group.create_task(engine.run(), name="engine")
