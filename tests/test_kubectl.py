"""kubectl as a program: what is asked of it, and the one sentence that a failed call becomes.

The real kubectl is asked where it needs no API server; tests/envtest/test_kubectl.py asks it in front of one. Elsewhere
a script stands in for it that says what the real one would.
"""

from __future__ import annotations

import io
import re
import stat
from pathlib import Path

import pytest

from injector.command.kubectl import MOST_OUTPUT, Kubectl, KubectlError, MissingRight, NotFound
from tests.envtest.cluster import free_ports, write_kubeconfig
from tests.terminal import ROOT

REAL = str(ROOT / ".venv" / "bin" / "kubectl")


def standin(folder: Path, script: str) -> Kubectl:
    """A program that writes its arguments to the file `asked`, and then does what the script says."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{folder}/asked"\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return Kubectl(program=str(program))


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_the_cluster_is_the_one_that_the_user_chose(tmp_path: Path) -> None:
    chosen = standin(tmp_path, "echo '{\"items\": []}'")
    chosen = Kubectl(context="far", kubeconfig="/my/config", program=chosen.program)
    assert chosen.find("pods", everywhere=True, labels="a=b", fields="c=d") == []
    assert asked(tmp_path) == [
        "--context=far",
        "--kubeconfig=/my/config",
        "get",
        "pods",
        "--output=json",
        "--all-namespaces",
        "--selector=a=b",
        "--field-selector=c=d",
    ]


def test_without_a_namespace_it_is_that_of_the_context(tmp_path: Path) -> None:
    standin(tmp_path, "echo '{\"items\": []}'").find("pods")
    assert asked(tmp_path) == ["get", "pods", "--output=json"]


def test_an_object_goes_in_as_json_and_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, "cat")
    job = {"kind": "Job", "metadata": {"generateName": "ü-"}}
    assert kubectl.create(job, "jobs.batch", namespace="shop") == job
    assert kubectl.apply(job, "jobs.batch", namespace="shop") == job


@pytest.mark.parametrize("name", ["--all", "-f", "a b", "A", "", "a\n", "../x"])
def test_what_is_no_name_never_reaches_a_command_line(tmp_path: Path, name: str) -> None:
    kubectl = standin(tmp_path, "exit 1")
    for call in (
        lambda: kubectl.get("pods", name),
        lambda: kubectl.find("pods", namespace=name),
        lambda: kubectl.delete("pods", name),
        lambda: kubectl.logs(name, "app"),
        lambda: kubectl.execute(name, "app", ["true"]),
    ):
        with pytest.raises(KubectlError, match="is no name of an object: write lower-case letters"):
            call()
    assert not (tmp_path / "asked").exists()


def test_a_command_in_a_container_is_passed_on_word_by_word(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, "cat; echo more >&2")
    answer = kubectl.execute("web", "app", ["a b", "$(x)", "--c"], namespace="shop", given=b"\x00in")
    assert answer == (0, b"\x00in", "more\n")
    wanted = ["--namespace=shop", "exec", "web", "--container=app", "--stdin", "--", "a b", "$(x)", "--c"]
    assert asked(tmp_path) == wanted


def test_a_command_that_fails_is_an_answer(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, "echo out; echo why >&2; echo command terminated with exit code 7 >&2; exit 7")
    assert kubectl.execute("web", "app", ["x"]) == (7, b"out\n", "why\n")


def test_the_output_of_a_command_can_go_to_a_file(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, "echo out")
    with (tmp_path / "file").open("wb") as file:
        assert kubectl.execute("web", "app", ["x"], into=file) == (0, b"", "")
    assert (tmp_path / "file").read_bytes() == b"out\n"
    assert isinstance(file, io.BufferedWriter)


def test_without_kubectl_it_says_where_it_is_had(tmp_path: Path) -> None:
    with pytest.raises(KubectlError, match=re.escape("nowhere/kubectl is not installed, or not in PATH: https://")):
        Kubectl(program=f"{tmp_path}/nowhere/kubectl").find("pods")
    (tmp_path / "kubectl").touch()
    with pytest.raises(KubectlError, match=r"/kubectl can't be started: Permission denied"):
        Kubectl(program=f"{tmp_path}/kubectl").find("pods")


def test_the_real_one_without_a_cluster_is_one_sentence(tmp_path: Path) -> None:
    """Its log, five lines of it, is left out."""
    (port,) = free_ports(1)
    config = tmp_path / "config"
    (tmp_path / "ca.crt").touch()
    write_kubeconfig(config, f"http://127.0.0.1:{port}", tmp_path / "ca.crt", "token")
    config.write_text(re.sub(r"certificate-authority.*", "", config.read_text()))
    with pytest.raises(KubectlError) as raised:
        Kubectl(kubeconfig=str(config), program=REAL).find("pods", namespace="shop")
    assert str(raised.value) == (
        f"kubectl can't list pods in namespace shop: The connection to the server 127.0.0.1:{port} was refused - "
        "did you specify the right host or port?"
    )
    with pytest.raises(KubectlError, match=r"kubectl can't list pods: .*context was not found .*: none"):
        Kubectl(kubeconfig=str(config), context="none", program=REAL).find("pods")
    with pytest.raises(KubectlError, match=r"kubectl can't list pods: stat .*/absent: no such file or directory"):
        Kubectl(kubeconfig=f"{tmp_path}/absent", program=REAL).find("pods")


FORBIDDEN = """\
case "$*" in *can-i*) echo RIGHT; exit 1;; esac
echo 'Error from server (Forbidden): pods "web" is forbidden: the words of the API' >&2; exit 1"""


def test_a_missing_right_is_named_as_the_rule_that_would_give_it(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, FORBIDDEN.replace("RIGHT", "no"))
    with pytest.raises(MissingRight) as raised:
        kubectl.execute("web", "app", ["true"], namespace="shop")
    assert str(raised.value) == (
        "you may not create pods/exec in namespace shop; with this rule in a Role of yours you may: "
        '{apiGroups: [""], resources: ["pods/exec"], verbs: ["create"]}'
    )
    with pytest.raises(MissingRight) as raised:
        kubectl.find("jobs.batch", everywhere=True)
    assert str(raised.value) == (
        "you may not list jobs.batch in all namespaces; with this rule in a ClusterRole of yours you may: "
        '{apiGroups: ["batch"], resources: ["jobs"], verbs: ["list"]}'
    )
    assert "--subresource=exec" in asked(tmp_path)


def test_a_right_can_be_asked_for_before_anything_is_begun(tmp_path: Path) -> None:
    with pytest.raises(MissingRight, match="you may not create pods/exec in namespace shop; with this rule in a Role"):
        standin(tmp_path, "echo no; exit 1").require("create", "pods/exec", namespace="shop")
    assert asked(tmp_path) == ["--namespace=shop", "auth", "can-i", "create", "pods", "--subresource=exec"]
    for answer in ("echo yes", "echo 'the server is away' >&2; exit 1"):
        standin(tmp_path, answer).require("create", "pods/exec", namespace="shop")


def test_a_call_that_a_user_can_type_goes_to_the_same_cluster() -> None:
    assert Kubectl().typed("get", "pods") == "kubectl get pods"
    far = Kubectl(context="far away", kubeconfig="/my/config")
    assert far.typed("get", "pods") == "kubectl '--context=far away' --kubeconfig=/my/config get pods"


def test_what_is_forbidden_to_one_who_may_is_said_in_the_words_of_the_api(tmp_path: Path) -> None:
    """A policy or a quota, say."""
    kubectl = standin(tmp_path, FORBIDDEN.replace("RIGHT", "yes"))
    with pytest.raises(KubectlError) as raised:
        kubectl.create({}, "pods", namespace="shop")
    assert type(raised.value) is KubectlError
    said = 'pods "web" is forbidden: the words of the API'
    assert str(raised.value) == f"the API server refuses to create Pod in namespace shop (Forbidden): {said}"


def test_a_pod_that_is_gone_is_not_found(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, "echo 'Error from server (NotFound): pods \"web\" not found' >&2; exit 1")
    for call in (
        lambda: kubectl.get("pods", "web", namespace="shop"),
        lambda: kubectl.execute("web", "app", ["true"], namespace="shop"),
        lambda: kubectl.logs("web", "app", namespace="shop"),
    ):
        with pytest.raises(NotFound, match=r"^there is no Pod web in namespace shop, or no longer$"):
            call()


def test_what_takes_too_long_is_ended_though_a_plugin_of_it_lives_on(tmp_path: Path) -> None:
    """The plugin holds kubectl's pipes open."""
    kubectl = standin(tmp_path, "echo 'open https://login and enter 1234' >&2; sleep 20 & exec sleep 20")
    with pytest.raises(KubectlError) as raised:
        kubectl.execute("web", "app", ["true"], patience=0.5)
    assert str(raised.value) == (
        "kubectl took more than 0.5 s to run a command in container app of Pod web; "
        "it said: open https://login and enter 1234"
    )


@pytest.mark.parametrize("stream", [1, 2])
def test_no_container_fills_the_memory_of_whoever_asks_it(stream: int, tmp_path: Path) -> None:
    """It would say the same for ever; what it may is far above what is asked of it."""
    kubectl = standin(tmp_path, f"exec yes >&{stream}")
    with pytest.raises(KubectlError) as raised:
        kubectl.execute("web", "app", ["x"])
    why = "the answer when asked to run a command in container app of Pod web is longer than 16 MiB"
    assert str(raised.value) == why
    several = standin(tmp_path, "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
    assert len(several.execute("web", "app", ["x"]).output) == 1_000_000


def test_a_log_is_asked_for_no_longer_than_it_may_be(tmp_path: Path) -> None:
    standin(tmp_path, "").logs("web", "app")
    assert f"--limit-bytes={MOST_OUTPUT}" in asked(tmp_path)


def test_an_answer_that_is_no_json_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(KubectlError, match="kubectl's answer when asked to get Pod web is no object in JSON"):
        standin(tmp_path, "echo hello").get("pods", "web")


def test_what_was_said_is_cut_and_stays_one_line(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, f"printf 'one\\n\\033[31mtwo {'x' * 1000}' >&2; exit 3")
    with pytest.raises(KubectlError) as raised:
        kubectl.get("pods", "web")
    text = str(raised.value)
    assert text.startswith("kubectl can't get Pod web: one \\x1b[31mtwo xxx")
    assert len(text) < 400
