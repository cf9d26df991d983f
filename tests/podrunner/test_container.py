"""A container gets the user, rights, limits and volumes that its Pod asks for."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.podrunner import BlockedPod, Node
from tests.podrunner.environment import InvalidContainer
from tests.podrunner.images import UnknownImage, application
from tests.podrunner.specs import UNTIL_TERM, container, pod

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.containers, pytest.mark.slow]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(
        images={"app": application()},
        secrets={"keys": {"ID": "one", "KEY": "two"}},
        config_maps={"settings": {"level": "info"}},
        token="a token",
        back_off=0.2,
    ) as made:
        yield made


def output(node: Node, asked: dict[str, Any], **start: Any) -> str:
    """What the container `main` of a Pod that runs to completion prints."""
    asked["spec"]["restartPolicy"] = "Never"
    run = node.start(asked, **start)
    result = run.wait_ended()
    assert result.phase == "Succeeded", run.logs("main")
    run.delete()
    return run.logs("main")


def status(node: Node, security: dict[str, Any], **spec: Any) -> dict[str, str]:
    """The lines of /proc/self/status of a container with a security context."""
    text = output(node, pod(container("cat /proc/self/status", securityContext=security), **spec))
    return {key: " ".join(value.split()) for key, value in (line.split(":", 1) for line in text.splitlines())}


def test_container_before_pod_decides_user_and_group(node: Node) -> None:
    of_pod = {"runAsUser": 1000, "runAsGroup": 2000, "supplementalGroups": [4000], "fsGroup": 5000}
    seen = status(node, {"runAsUser": 65532}, securityContext=of_pod)
    assert seen["Uid"] == "65532 65532 65532 65532"
    assert seen["Gid"] == "2000 2000 2000 2000"
    assert set(seen["Groups"].split()) >= {"4000", "5000"}


def test_a_group_that_is_not_set_is_root(node: Node) -> None:
    assert status(node, {"runAsUser": 1000})["Gid"] == "0 0 0 0"


def test_dropped_capabilities_and_no_new_privileges_hold_for_root(node: Node) -> None:
    seen = status(node, {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}, "allowPrivilegeEscalation": False})
    assert (seen["CapEff"], seen["CapBnd"], seen["NoNewPrivs"]) == ("0" * 15 + "1", "0" * 15 + "1", "1")


def test_the_default_capabilities_are_a_container_runtimes(node: Node) -> None:
    seen = status(node, {})
    assert (seen["CapEff"], seen["NoNewPrivs"]) == ("00000000a80425fb", "0")


def test_root_is_refused_where_the_pod_forbids_it(node: Node) -> None:
    run = node.start(pod(container("true", securityContext={"runAsNonRoot": True})))
    with pytest.raises(BlockedPod, match="runAsNonRoot"):
        run.wait_started()
    run.delete()


def test_a_read_only_root_can_be_written_to_in_volumes_only(node: Node) -> None:
    script = "echo x > /volume/x && cat /volume/x; { echo y > /y; } 2>/dev/null || echo refused"
    asked = pod(
        container(
            script,
            securityContext={"readOnlyRootFilesystem": True},
            volumeMounts=[{"name": "v", "mountPath": "/volume"}],
        ),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    assert output(node, asked).splitlines() == ["x", "refused"]


def test_what_a_container_writes_to_its_root_is_gone_in_its_next_life(node: Node) -> None:
    run = node.start(pod(container("ls /kept; echo x > /kept; exit 1"), restartPolicy="OnFailure"))
    run._await(lambda: len(run.containers["main"].past) >= 2, 20)
    assert "No such file" in run.logs("main", 1)
    run.delete()


def test_more_memory_than_the_limit_is_an_oom_kill(node: Node) -> None:
    hungry = container("exec dd if=/dev/zero of=/dev/null bs=200M", resources={"limits": {"memory": "32Mi"}})
    run = node.start(pod(hungry, restartPolicy="Never"))
    ended = run.wait_ended().containers["main"]
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    assert 16 << 20 < ended.memory_peak <= 32 << 20
    run.delete()


@pytest.mark.parametrize("group", [True, False])
def test_a_container_without_memory_dies_as_a_whole_where_cgroups_are_grouped(group: bool) -> None:
    hungry = container(
        "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1; exit 3", resources={"limits": {"memory": "32Mi"}}
    )
    with Node(oom_group=group) as node:
        run = node.start(pod(hungry, restartPolicy="Never"))
        ended = run.wait_ended().containers["main"]
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137 if group else 3)


def test_cpu_limits_reach_the_cgroup(node: Node) -> None:
    run = node.start(pod(container(UNTIL_TERM, resources={"limits": {"cpu": "500m"}})))
    run.wait_started()
    life = run.containers["main"].life
    assert life is not None
    assert '"quota": 50000' in (life.bundle / "config.json").read_text()
    run.delete()


def test_an_empty_directory_is_open_to_all_and_shared(node: Node) -> None:
    mounts = [{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}]
    first = container("echo from-init > /disk/x", "first", volumeMounts=mounts, securityContext={"runAsUser": 1000})
    script = (
        "cat /disk/x; stat -c '%a %u' /disk /memory; grep -c '^tmpfs /memory ' /proc/mounts;"
        "dd if=/dev/zero of=/memory/y bs=2M count=1 2>&1; true"
    )
    asked = pod(
        container(script, volumeMounts=mounts, securityContext={"runAsUser": 2000}),
        init=(first,),
        volumes=[
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    )
    lines = output(node, asked).splitlines()
    assert lines[:4] == ["from-init", "777 0", "777 0", "1"]
    assert "No space left" in lines[4]


def test_a_directory_above_its_size_limit_evicts_the_pod(node: Node) -> None:
    script = f"dd if=/dev/zero of=/v/x bs=1M count=3; {UNTIL_TERM}"
    mounted = container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    run = node.start(pod(mounted, volumes=[{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}]))
    result = run.wait_ended()
    assert (result.phase, result.reason) == ("Failed", "Evicted")
    assert '"v" exceeds the limit' in result.message
    run.delete()


def test_nested_read_only_and_partial_mounts(node: Node) -> None:
    mounts = [
        {"name": "v", "mountPath": "/a/b/c", "readOnly": True, "subPath": "part/one"},
        {"name": "w", "mountPath": "/a/b"},
        {"name": "v", "mountPath": "/a", "subPathExpr": "$(NAME)-x"},
    ]
    script = "echo 1 > /a/in-a; echo 2 > /a/b/in-b; { echo 3 > /a/b/c/in-c; } 2>/dev/null || echo refused; ls /a /a/b"
    asked = pod(
        container(script, volumeMounts=mounts, env=[{"name": "NAME", "value": "n"}]),
        volumes=[{"name": "v", "hostPath": {"path": "/srv/v"}}, {"name": "w", "emptyDir": {}}],
    )
    assert "refused" in output(node, asked)
    assert (node.host / "srv/v/n-x/in-a").read_text() == "1\n"
    assert list((node.host / "srv/v/part/one").iterdir()) == []


@pytest.mark.parametrize("part", ["../x", "/x", "leads-out"])
def test_a_part_of_a_volume_can_not_lie_outside_it(node: Node, part: str) -> None:
    (node.host / "srv/safe").mkdir(parents=True, exist_ok=True)
    (link := node.host / "srv/safe/leads-out").unlink(missing_ok=True)
    link.symlink_to("/")
    mounted = container("true", volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": part}])
    run = node.start(pod(mounted, volumes=[{"name": "v", "hostPath": {"path": "/srv/safe"}}]))
    with pytest.raises(BlockedPod, match="subPath"):
        run.wait_started()
    run.delete()


def test_a_claim_outlives_its_pod(node: Node, tmp_path: Path) -> None:
    claimed = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    script = "echo again >> /v/x; cat /v/x"
    for expected in ("again\n", "again\nagain\n"):
        asked = pod(container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=claimed)
        assert output(node, asked, claims={"data": tmp_path}) == expected
    with pytest.raises(InvalidContainer, match="'data' not found"):
        node.start(pod(container("true"), volumes=claimed))


def test_fs_group_owns_the_volumes(node: Node, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    (tmp_path / "old").chmod(0o600)
    mounts = [{"name": "claim", "mountPath": "/claim"}, {"name": "secret", "mountPath": "/secret"}]
    asked = pod(
        container("id -G; echo x >> /claim/old; cat /secret/ID", volumeMounts=mounts),
        securityContext={"runAsUser": 1000, "fsGroup": 5000},
        volumes=[
            {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        ],
    )
    assert output(node, asked, claims={"data": tmp_path}).splitlines()[-1] == "one"
    old = (tmp_path / "old").stat()
    assert (old.st_gid, stat.S_IMODE(old.st_mode)) == (5000, 0o660)
    assert tmp_path.stat().st_mode & stat.S_ISGID


def test_files_of_secrets_config_maps_fields_and_tokens(node: Node) -> None:
    projected = {
        "sources": [
            {"secret": {"name": "keys", "items": [{"key": "KEY", "path": "in/key"}]}},
            {"configMap": {"name": "settings"}},
            {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
            {"secret": {"name": "absent", "optional": True}},
        ]
    }
    script = (
        "cd /v && for f in in/key level name token; do cat $f; echo; done;"
        "stat -c %a token; { echo > token; } 2>/dev/null || echo refused"
    )
    asked = pod(
        container(script, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "projected": projected}],
    )
    lines = output(node, asked).splitlines()
    assert lines[:5] == ["two", "info", "p", "a token", "644"]
    assert "refused" in lines


def test_entrypoint_command_and_arguments(node: Node) -> None:
    version = {"name": "main", "image": "litestream/litestream:0.5.17", "args": ["version"]}
    assert output(node, pod(version)) == "0.5.17\n"
    expanded = {"name": "main", "image": "busybox", "args": ["echo", "$(A)", "$$(A)", "$(B)"]}
    assert output(node, pod({**expanded, "env": [{"name": "A", "value": "1"}]})) == "1 $(A) $(B)\n"


def test_the_scratch_image_has_no_shell_and_its_own_user(node: Node) -> None:
    image = "litestream/litestream:0.5.17-scratch"
    alone = {"name": "main", "image": image, "args": ["version"], "securityContext": {"runAsNonRoot": True}}
    assert output(node, pod(alone)) == "0.5.17\n"
    run = node.start(pod({"name": "main", "image": image, "command": ["sh"]}, restartPolicy="Never"))
    ended = run.wait_ended().containers["main"]
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert '"sh"' in ended.message
    run.delete()


def test_the_application_image_has_python_with_sqlite3(node: Node) -> None:
    script = "import sqlite3; print(sqlite3.connect(':memory:').execute('SELECT 1+1').fetchone())"
    asked = pod({"name": "main", "image": "app", "command": ["python3", "-c", script]})
    assert output(node, asked) == "(2,)\n"


def test_the_environment_of_this_machine_does_not_leak(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/leaked")
    names = {line.split("=")[0] for line in output(node, pod(container("env"))).splitlines()}
    assert names == {"HOSTNAME", "PATH", "HOME", "PWD", "SHLVL"}


def test_an_unknown_image_is_an_error(node: Node) -> None:
    with pytest.raises(UnknownImage, match="'nginx:1'"):
        node.start(pod({"name": "main", "image": "nginx:1"}))
