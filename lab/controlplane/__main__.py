"""The command line: `python -m lab.controlplane build | start DIR | stop DIR`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lab.controlplane.build import ensure_binaries
from lab.controlplane.cluster import ControlPlane, say
from lab.controlplane.errors import ControlPlaneError


def main() -> int:
    """Run one command; the exit status is 1 if it failed."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "build":
            _build()
        elif arguments.command == "start":
            _start(arguments.directory, arguments.bind, arguments.san)
        else:
            ControlPlane.open(arguments.directory).stop()
    except ControlPlaneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.controlplane",
        description="A real Kubernetes control plane on this machine: etcd, kube-apiserver and "
        "kube-controller-manager.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the binaries, if they are not in the cache")
    start = commands.add_parser("start", help="start a control plane; again, with its old data")
    start.add_argument("directory", type=Path, metavar="DIR")
    start.add_argument(
        "--bind", metavar="ADDRESS", help="where the API server listens (default: 127.0.0.1)"
    )
    start.add_argument(
        "--san",
        action="append",
        metavar="NAME",
        help="another address or DNS name for its certificate; may be repeated",
    )
    stop = commands.add_parser("stop", help="stop it; the data stays")
    stop.add_argument("directory", type=Path, metavar="DIR")
    return parser


def _build() -> None:
    binaries = ensure_binaries(say)
    for path in vars(binaries).values():
        print(path)


def _start(directory: Path, bind: str | None, sans: list[str] | None) -> None:
    if bind is None and sans is None and ControlPlane.exists(directory):
        plane = ControlPlane.open(directory)
    else:
        plane = ControlPlane(directory, bind=bind or "127.0.0.1", extra_sans=sans or ())
    started = time.monotonic()
    plane.start()
    say(f"{plane.server} is ready after {time.monotonic() - started:.1f} s")
    print(f"export KUBECONFIG={plane.kubeconfig}")


if __name__ == "__main__":
    sys.exit(main())
