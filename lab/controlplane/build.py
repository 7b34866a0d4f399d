"""Find the control plane's binaries, or build them from the Go module proxy.

go.mod beside this file pins every version. What was built is kept by the hash of go.mod, go.sum and
the recipe below, so a changed pin is another folder and a stale binary is never used.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, cast

from lab.controlplane.errors import ControlPlaneError

Progress = Callable[[str], None]

MODULE = Path(__file__).resolve().parent
HEARTBEAT = 15.0
"""Seconds between two signs of life while one binary is compiled."""

KUBERNETES = "k8s.io/kubernetes"
HELM = "helm.sh/helm/v3"

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": f"{KUBERNETES}/cmd/kube-apiserver",
    "kube-controller-manager": f"{KUBERNETES}/cmd/kube-controller-manager",
    "kubectl": f"{KUBERNETES}/cmd/kubectl",
    "helm": f"{HELM}/cmd/helm",
}
"""Binary to Go package, in the order of building. Each is a `tool` line in go.mod too."""

FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
LINKER = ("-s", "-w")


@dataclass(frozen=True)
class Binaries:
    """Paths of the programs, all executable."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path
    helm: Path


def ensure_binaries(progress: Progress) -> Binaries:
    """Return the binaries; build what is missing, telling `progress` line by line.

    Cold it takes minutes, warm some milliseconds. Safe to interrupt (a finished binary is kept) and
    safe for several callers at once (the later ones wait).

    Raises ControlPlaneError if KUBEBUILDER_ASSETS names no folder, if Go is missing or too old, or
    if a build fails.
    """
    given = _given()
    cache = cache_directory()
    paths = {name: given.get(name, cache / "bin" / name) for name in PACKAGES}
    missing = [name for name in PACKAGES if not _is_program(paths[name])]
    if missing:
        _build(missing, cache, progress)
    return Binaries(
        **{field.name: paths[field.name.replace("_", "-")] for field in fields(Binaries)}
    )


def cache_directory() -> Path:
    """The folder of the binaries built by this go.mod; it need not exist yet."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    recipe = (PACKAGES, FLAGS, _linker_flags("etcd"), _linker_flags("helm"), platform.machine())
    digest.update(repr(recipe).encode())
    return user_cache() / digest.hexdigest()[:16]


def user_cache() -> Path:
    """This user's cache of everything about control planes."""
    # The XDG specification: an empty or relative value counts as unset.
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = configured if configured.is_absolute() else Path.home() / ".cache"
    return root / "dsr-operator" / "controlplane"


def _given() -> dict[str, Path]:
    """What KUBEBUILDER_ASSETS holds of our programs."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return {}
    folder = Path(assets).absolute()
    if not folder.is_dir():
        raise ControlPlaneError(
            f"KUBEBUILDER_ASSETS is {assets!r}, which is no folder: point it at one with etcd, "
            "kube-apiserver and kubectl, or unset it to have them built"
        )
    return {name: folder / name for name in PACKAGES if _is_program(folder / name)}


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _build(names: list[str], cache: Path, progress: Progress) -> None:
    go = _go()
    bin_folder = cache / "bin"
    bin_folder.mkdir(parents=True, exist_ok=True)
    with _lock(cache / "lock", progress) as lock:
        # Another process may have built some of them while this one waited for the lock.
        names = [name for name in names if not _is_program(bin_folder / name)]
        if names:
            progress(f"building {', '.join(names)} into {bin_folder} (minutes when cold)")
        started = time.monotonic()
        for number, name in enumerate(names, 1):
            # Only the holder of the lock uses this name, so what is there is a leftover to replace.
            unfinished = bin_folder / f".{name}.unfinished"
            prefix = f"[{number}/{len(names)}] {name}: "
            _build_one(go, name, unfinished, lock, _prefixed(progress, prefix))
            unfinished.replace(bin_folder / name)
        if names:
            progress(f"built all in {time.monotonic() - started:.0f} s")


def _build_one(go: str, name: str, target: Path, lock: IO[str], progress: Progress) -> None:
    started = time.monotonic()
    progress("building")
    command = [go, "build", "-v", *FLAGS, "-ldflags", " ".join(_linker_flags(name))]
    with subprocess.Popen(
        [*command, "-o", str(target), PACKAGES[name]],
        cwd=MODULE,
        env=_go_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # The child holds the lock as well: if this process is killed, nobody else builds into the
        # same folder before the orphaned compiler has ended.
        pass_fds=(lock.fileno(),),
    ) as process:
        output = _Output(cast("IO[str]", process.stderr))
        output.start()
        try:
            while not _ended(process):
                elapsed = time.monotonic() - started
                progress(f"{elapsed:.0f} s, {output.compiled} packages compiled")
        except BaseException:
            process.terminate()
            raise
        output.join()
    if process.returncode != 0:
        raise ControlPlaneError(
            f"building {name} failed: `go build` returned {process.returncode}. Its last words:\n"
            + "\n".join(output.messages)
        )
    size = target.stat().st_size / 1e6
    progress(f"done in {time.monotonic() - started:.0f} s, {size:.0f} MB")


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda line: progress(prefix + line)


def _ended(process: subprocess.Popen[str]) -> bool:
    """Wait for the end of a process, for one heartbeat at most."""
    try:
        process.wait(HEARTBEAT)
    except subprocess.TimeoutExpired:
        return False
    return True


class _Output(threading.Thread):
    """Reads what `go build -v` prints: a line per compiled package, downloads and errors."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(name="go-build-output", daemon=True)
        self.compiled = 0
        self.messages: deque[str] = deque(maxlen=40)
        self._stream = stream

    def run(self) -> None:
        for line in self._stream:
            if re.fullmatch(r"[\w.~/-]+", line.rstrip()):
                self.compiled += 1
            elif not line.startswith("go: downloading "):
                self.messages.append(line.rstrip())


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[IO[str]]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is building the control plane: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _go() -> str:
    """The go command, if it can read our go.mod."""
    go = shutil.which("go")
    wanted = _pinned(r"^go (\S+)$")
    advice = (
        f"install Go {wanted} or later and have `go` in PATH (Debian: apt-get install golang-go, "
        "if its version is that new), or set KUBEBUILDER_ASSETS to a folder with etcd, "
        "kube-apiserver, kube-controller-manager, kubectl and helm"
    )
    if go is None:
        raise ControlPlaneError(f"Go is missing: {advice}")
    # Asked outside of the module, or a `go` that is too old would fail on the go.mod itself.
    answer = subprocess.run(
        [go, "env", "GOVERSION"], cwd="/", capture_output=True, text=True, check=False
    )
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    if found is None:
        raise ControlPlaneError(f"`{go} env GOVERSION` failed ({answer.stderr.strip()}): {advice}")
    major, minor = wanted.split(".")[:2]
    if (int(found[1]), int(found[2])) < (int(major), int(minor)):
        raise ControlPlaneError(f"{go} is {answer.stdout.strip()}, which is too old: {advice}")
    return go


def _go_environment() -> dict[str, str]:
    # CGO off: static programs, and no C compiler needed. GOWORK off: a go.work further up in the
    # tree must not change the versions. The rest is the user's own configuration of Go.
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}


def _linker_flags(name: str) -> list[str]:
    """Strip the program and stamp its version, which the module proxy's sources do not have.

    Without the stamp kubectl and helm fail to parse the server's version, and features that depend
    on it (emulation version, chart `kubeVersion`) go wrong.
    """
    major, minor = kubernetes_version().removeprefix("v").split(".")[:2]
    stamps: dict[str, str] = {}
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        stamps[f"{package}.gitVersion"] = kubernetes_version()
        stamps[f"{package}.gitMajor"] = major
        stamps[f"{package}.gitMinor"] = minor
        stamps[f"{package}.gitCommit"] = ""
        stamps[f"{package}.gitTreeState"] = "archive"
    if name == "helm":
        stamps[f"{HELM}/internal/version.version"] = helm_version()
        stamps[f"{HELM}/internal/version.metadata"] = ""
        for package in (f"{HELM}/pkg/chartutil", f"{HELM}/pkg/lint/rules"):
            stamps[f"{package}.k8sVersionMajor"] = major
            stamps[f"{package}.k8sVersionMinor"] = minor
    return [*LINKER, *(f"-X={variable}={value}" for variable, value in stamps.items())]


def kubernetes_version() -> str:
    """The pinned version of Kubernetes, with its `v`."""
    return _pinned(rf"^\s*{re.escape(KUBERNETES)} (v\S+)")


def helm_version() -> str:
    """The pinned version of Helm, with its `v`."""
    return _pinned(rf"^\s*{re.escape(HELM)} (v\S+)")


def _pinned(pattern: str) -> str:
    found = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ControlPlaneError(f"{MODULE / 'go.mod'} has no line that matches {pattern!r}")
    return found[1]
