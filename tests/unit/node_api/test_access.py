from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from dsr_node.api.access import AccessError, from_kubeconfig, in_cluster


def kubeconfig(path: Path, user: dict[str, str], **cluster: str | bool) -> Path:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://api:6443/", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_token_in_the_kubeconfig(tmp_path: Path) -> None:
    access = from_kubeconfig(kubeconfig(tmp_path / "k", {"token": "t"}))
    assert access.server == "https://api:6443"
    assert access.token() == "t"


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    access = from_kubeconfig(kubeconfig(tmp_path / "k", {"tokenFile": "token"}))
    assert access.token() == "one"
    beside = tmp_path / "token.new"
    beside.write_text("two\n")
    beside.rename(token)
    assert access.token() == "two"


def test_what_is_not_supported_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="none of token"):
        from_kubeconfig(kubeconfig(tmp_path / "k", {"username": "u"}))


@pytest.mark.parametrize("text", ["", "- a", "{current-context: x, contexts: []}", "{a: ["])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(AccessError, match=str(path)):
        from_kubeconfig(path)


def test_a_ca_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    path = kubeconfig(tmp_path / "k", {"token": "t"}, **{"certificate-authority": "ca"})
    with pytest.raises(AccessError, match=str(path)):
        from_kubeconfig(path)


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_in_a_pod(tmp_path: Path, host: str, server: str) -> None:
    (tmp_path / "token").write_text("t")
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    access = in_cluster(environment, tmp_path)
    assert (access.server, access.token()) == (server, "t")


def test_outside_a_pod_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="--kubeconfig"):
        in_cluster({}, tmp_path)
    with pytest.raises(AccessError, match="--kubeconfig"):
        in_cluster(dict(os.environ) | {"KUBERNETES_SERVICE_HOST": "h"}, tmp_path)
