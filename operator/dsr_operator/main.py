"""`dsr-operator run`: wires the parts together and runs them until one fails or a signal comes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import uuid
from pathlib import Path

import click
import kopf

from dsr_operator.app import Config, Operator
from dsr_operator.client import ApiError, UnreachableError
from dsr_operator.uninstall import Installation, UninstallError
from dsr_operator.uninstall import uninstall as take_away

log = logging.getLogger("dsr_operator")

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@click.group()
def main() -> None:
    """The DSR operator: compiles DSRServices into plans for the node daemons."""


@main.command()
@click.option(
    "--namespace",
    envvar="POD_NAMESPACE",
    help="Namespace of the operator and of all Leases. Default: the pod's own.",
)
@click.option(
    "--kubeconfig",
    envvar="KUBECONFIG",
    type=click.Path(exists=True, dir_okay=False),
    help="Default: the service account of the pod.",
)
@click.option(
    "--identity",
    envvar="POD_NAME",
    default=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
    show_default="host name and a random part",
    help="Name of this candidate in the leader election; must be its own.",
)
@click.option(
    "--listen",
    default=":8080",
    show_default=True,
    help="HOST:PORT for /healthz, /readyz and /metrics.",
)
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning"]))
def run(
    namespace: str | None, kubeconfig: str | None, identity: str, listen: str, log_level: str
) -> None:
    """Run the operator until SIGTERM."""
    configure_logging(log_level)
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
    host, _, port = listen.rpartition(":")
    if not port.isdecimal():
        raise click.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    config = Config(namespace or _own_namespace(), identity, host.strip("[]"), int(port))
    try:
        sys.exit(asyncio.run(_serve(config)))
    except kopf.LoginError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--namespace", envvar="POD_NAMESPACE", required=True, help="Of the installation.")
@click.option("--identity", envvar="POD_NAME", required=True, help="As for `run`.")
@click.option("--deployment", required=True, help="Name of the operator's Deployment.")
@click.option("--daemon-set", required=True, help="Name of the node daemons' DaemonSet.")
@click.option("--cleanup", required=True, help="Name of the PodTemplate of what cleans a node.")
@click.option("--timeout", type=float, default=240.0, show_default=True, help="Seconds, in all.")
@click.option("--kubeconfig", envvar="KUBECONFIG", type=click.Path(exists=True, dir_okay=False))
def uninstall(*, timeout: float, kubeconfig: str | None, **names: str) -> None:
    """Withdraw everything and clean all nodes, before the chart's objects are deleted."""
    configure_logging("info")
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
    try:
        asyncio.run(take_away(Installation(**names), timeout))
    except (UninstallError, ApiError, UnreachableError, kopf.LoginError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(config: Config) -> int:
    operator = Operator(config)
    port = await operator.start()
    log.info("listening on port %d; namespace %s", port, config.namespace)
    return await operator.until()


def _own_namespace() -> str:
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    raise click.UsageError("--namespace is needed outside a pod")


def configure_logging(level: str) -> None:
    """One line a decision on standard error; kopf speaks only when something is wrong."""
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        # kopf logs each attempt of each watch; that the API server is away is told by ourselves.
        for handler in logging.getLogger().handlers:
            handler.addFilter(lambda record: not record.getMessage().startswith("Request attempt"))


if __name__ == "__main__":
    main()
