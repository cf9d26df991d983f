"""The containers of a Pod start, restart and end in the order and time that the kubelet gives them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.podrunner import BlockedPod, Node
from tests.podrunner.s3 import free_ports
from tests.podrunner.specs import DEAF, UNTIL_TERM, container, pod, shell, sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.podrunner import Run

pytestmark = [pytest.mark.containers, pytest.mark.slow]
VOLUME = {"name": "v", "emptyDir": {}}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(back_off=0.2) as made:
        yield made


def wait_up(run: Run) -> None:
    """Wait until every container that says "up" has done so: it handles SIGTERM from then on."""
    run.wait_started()
    for name, made in run.containers.items():
        if "echo up" in made.spec["command"][-1]:
            run.wait_log(name, "up")


def order(run: Run, *wanted: tuple[str, str]) -> None:
    """Assert that these events (container, beginning of what happened) happened, in this order."""
    told = [(event.container, event.what) for event in run.events]
    at = -1
    for name, what in wanted:
        found = [i for i, event in enumerate(told) if event[0] == name and event[1].startswith(what) and i > at]
        assert found, f"{name}: {what!r} does not come after {told[at] if at >= 0 else 'the start'} in {told}"
        at = found[0]


def test_init_containers_run_one_after_the_other_before_the_rest(node: Node) -> None:
    run = node.start(pod(container(UNTIL_TERM), init=(container("sleep 0.2", "one"), container("true", "two"))))
    wait_up(run)
    run.delete()
    order(run, ("one", "runs"), ("one", "Completed"), ("two", "runs"), ("two", "Completed"), ("main", "runs"))


def test_a_failing_init_container_blocks_the_pod_until_it_succeeds(node: Node) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = "echo trying; test -e /v/second || { touch /v/second; exit 3; }"
    asked = pod(
        container(UNTIL_TERM),
        init=(container(script, "init", volumeMounts=mounts),),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    run = node.start(asked)
    with pytest.raises(BlockedPod, match="exit code 3") as blocked:
        run.wait_started()
    assert "trying" in blocked.value.log
    run.wait_started(failures=1)
    assert run.containers["init"].lives == 2
    run.delete()


def test_a_failing_init_container_fails_a_pod_that_never_restarts(node: Node) -> None:
    run = node.start(pod(container(UNTIL_TERM), init=(container("exit 3", "init"),), restartPolicy="Never"))
    result = run.wait_ended()
    assert (result.phase, list(result.containers), run.containers["main"].lives) == ("Failed", ["init"], 0)
    run.delete()


def test_a_sidecar_lets_the_next_start_once_its_startup_probe_passes(node: Node) -> None:
    second = "test -e /tmp/asked || { touch /tmp/asked; exit 1; }"
    probe = shell(second, periodSeconds=1, failureThreshold=30)
    run = node.start(pod(container(UNTIL_TERM), init=(sidecar(UNTIL_TERM, "side", startupProbe=probe),)))
    wait_up(run)
    run.delete()
    order(run, ("side", "startupProbe failed"), ("side", "startupProbe passed"), ("main", "runs"))


def test_a_failing_startup_probe_restarts_its_container(node: Node) -> None:
    probe = shell("echo no; false", periodSeconds=1, failureThreshold=1)
    run = node.start(pod(container(UNTIL_TERM), init=(sidecar(UNTIL_TERM, "side", startupProbe=probe),)))
    run._await(lambda: run.containers["side"].lives == 2, 20)
    run.delete()
    order(run, ("side", "startupProbe failed (1 of 1): exit code 1: no"), ("side", "SIGTERM for startupProbe"))
    assert run.containers["main"].lives == 0


def test_a_failing_liveness_probe_restarts_its_container(node: Node) -> None:
    alive = shell("test ! -e /tmp/dead", periodSeconds=1, failureThreshold=2)
    run = node.start(pod(container(UNTIL_TERM, livenessProbe=alive)))
    wait_up(run)
    assert run.exec("main", ["touch", "/tmp/dead"]).exit_code == 0
    run._await(lambda: run.containers["main"].lives == 2, 20)
    run.delete()
    order(run, ("main", "livenessProbe failed (1 of 2)"), ("main", "livenessProbe failed (2 of 2)"), ("main", "runs"))


@pytest.mark.parametrize("kind", ["tcpSocket", "httpGet"])
def test_probes_over_the_network_decide_whether_a_pod_is_ready(node: Node, kind: str) -> None:
    (port,) = free_ports(1)
    serve = f"while ! test -e /v/go; do sleep 0.05; done; exec httpd -f -p 127.0.0.1:{port} -h /etc"
    action: dict[str, Any] = {"port": "web"} | ({"path": "/passwd"} if kind == "httpGet" else {})
    ports = [{"containerPort": port, "name": "web"}]
    main = container(
        serve,
        ports=ports,
        readinessProbe={kind: action, "periodSeconds": 1},
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    run = node.start(pod(main, volumes=[{"name": "v", "emptyDir": {}}]))
    wait_up(run)
    assert not run.containers["main"].ready
    (run.volume("v") / "go").touch()
    run.wait_ready()
    run.delete(grace=0)


def test_a_probe_that_takes_too_long_has_failed(node: Node) -> None:
    probe = shell("sleep 30", timeoutSeconds=1, failureThreshold=1)
    run = node.start(pod(container(UNTIL_TERM, livenessProbe=probe)))
    run._await(lambda: run.containers["main"].lives == 2, 20)
    run.delete()
    order(run, ("main", "livenessProbe failed (1 of 1): exit code 124"))


def test_containers_are_restarted_with_growing_pauses(node: Node) -> None:
    run = node.start(pod(container("exit 1")))
    run._await(lambda: run.containers["main"].lives == 4, 20)
    run.delete()
    order(
        run,
        ("main", "restarts in 0 s after exit code 1"),
        ("main", "restarts in 0.2 s"),
        ("main", "restarts in 0.4 s"),
    )


@pytest.mark.parametrize(
    ("policy", "code", "phase"), [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded")]
)
def test_a_pod_that_completes_ends_its_sidecars(node: Node, policy: str, code: int, phase: str) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    # Before its trap is set, a container's first process ignores SIGTERM.
    side = sidecar(UNTIL_TERM.replace("echo up", "touch /v/up"), "side", volumeMounts=mounts)
    main = container(f"while ! test -e /v/up; do sleep 0.05; done; exit {code}", volumeMounts=mounts)
    run = node.start(pod(main, init=(side,), restartPolicy=policy, volumes=[{"name": "v", "emptyDir": {}}]))
    result = run.wait_ended()
    run.delete()
    assert (result.phase, result.containers["main"].exit_code) == (phase, code)
    assert "bye" in run.logs("side")
    order(run, ("main", "Completed" if code == 0 else "Error"), ("side", "SIGTERM"))


def test_sidecars_end_after_the_application_in_reverse_order(node: Node) -> None:
    drain = "trap 'sleep 0.5; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    sidecars = (sidecar(UNTIL_TERM, "first"), sidecar(drain, "second"))
    run = node.start(pod(container(drain), container(drain, "other"), init=sidecars))
    wait_up(run)
    result = run.delete()
    assert {ended.exit_code for ended in result.containers.values()} == {0}
    order(run, ("main", "Completed"), ("second", "SIGTERM"), ("second", "Completed"), ("first", "SIGTERM"))
    order(run, ("other", "Completed"), ("second", "SIGTERM"))


def test_after_the_grace_period_the_application_is_killed_and_sidecars_get_two_seconds(node: Node) -> None:
    run = node.start(pod(container(DEAF), init=(sidecar(DEAF, "deaf"), sidecar(UNTIL_TERM, "side"))))
    wait_up(run)
    result = run.delete(grace=3)
    assert {name: ended.exit_code for name, ended in result.containers.items()} == {"main": 137, "deaf": 137, "side": 0}
    order(run, ("main", "SIGTERM, 3 s left"), ("main", "SIGKILL"))
    order(run, ("deaf", "SIGTERM, 2 s left"), ("deaf", "SIGKILL"))
    order(run, ("side", "SIGTERM, 2 s left"), ("side", "Completed"))
    assert result.seconds >= 5


def test_a_prestop_hook_runs_before_sigterm_and_uses_up_the_grace_period(node: Node) -> None:
    hooked = container(
        UNTIL_TERM, lifecycle={"preStop": shell("echo called > /tmp/hook; sleep 1.2; cat /tmp/hook >&2")}
    )
    sleeping = container(UNTIL_TERM, "sleeping", lifecycle={"preStop": {"sleep": {"seconds": 1}}})
    run = node.start(pod(hooked, sleeping))
    wait_up(run)
    run.delete()
    for name in ("main", "sleeping"):
        order(run, (name, "preStop"), (name, "SIGTERM, "), (name, "Completed"))
        (sent,) = (event.what for event in run.events if event.container == name and event.what.startswith("SIGTERM"))
        # The hook's second, and what a busy machine adds to it.
        assert sent in [f"SIGTERM, {left} s left" for left in (7, 8, 9)]


def test_a_prestop_hook_that_does_not_end_leaves_two_seconds(node: Node) -> None:
    run = node.start(pod(container(UNTIL_TERM, lifecycle={"preStop": shell("sleep 30")})))
    wait_up(run)
    run.delete(grace=1)
    order(run, ("main", "preStop failed"), ("main", "SIGTERM, 2 s left"), ("main", "Completed"))


def test_a_poststart_hook_that_fails_restarts_its_container(node: Node) -> None:
    hook = shell("while ! test -e /v/up; do sleep 0.05; done; test -e /v/x || { touch /v/x; exit 1; }")
    script = "trap 'exit 0' TERM; touch /v/up; while :; do sleep 0.05; done"
    asked = pod(
        container(script, lifecycle={"postStart": hook}, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        container(UNTIL_TERM, "after"),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    run = node.start(asked)
    wait_up(run)
    run.delete()
    order(run, ("main", "postStart failed"), ("main", "SIGTERM for FailedPostStartHook"), ("main", "runs"))


def test_a_poststart_hook_holds_up_the_next_container_and_the_deletion(node: Node) -> None:
    hook = shell("while ! test -e /v/go; do sleep 0.05; done; touch /v/greeted")
    mounts = [{"name": "v", "mountPath": "/v"}]
    side = sidecar(UNTIL_TERM, "side", lifecycle={"postStart": hook}, volumeMounts=mounts)
    run = node.start(pod(container("test -e /v/greeted", volumeMounts=mounts), init=(side,), volumes=[VOLUME]))
    run.wait_log("side", "up")
    ended: list[bool] = []
    deleting = threading.Thread(target=lambda: ended.append(bool(run.delete())))
    deleting.start()
    run._await(lambda: run._stopping, 20)
    assert not ended
    assert not any(event.what.startswith("SIGTERM") for event in run.events)
    (run.volume("v") / "go").touch()
    deleting.join()
    assert run.containers["main"].lives == 0
    order(run, ("side", "runs"), ("side", "SIGTERM"), ("side", "Completed"))


def test_the_end_of_an_init_container_is_seen_when_the_kubelet_looks_again() -> None:
    with Node(relist=1) as slow:
        run = slow.start(pod(container(UNTIL_TERM), init=(container("true", "one"), container("true", "two"))))
        assert run.wait_started() >= 2
        begins = [event.at for event in run.events if event.what == "runs" and event.container != "one"]
        assert all(at % 1 < 0.9 for at in begins), begins
        wait_up(run)
        run.delete()


def test_probes_tick_in_the_life_of_the_pod_not_of_the_container(node: Node) -> None:
    probe = shell("false", periodSeconds=1)
    run = node.start(pod(container(UNTIL_TERM, livenessProbe=probe), init=(container("sleep 0.6", "one"),)))
    run.wait_event("main", "livenessProbe failed", 20)
    (runs,) = (event.at for event in run.events if event.what == "runs" and event.container == "main")
    failed = next(event.at for event in run.events if event.what.startswith("livenessProbe failed"))
    assert int(failed) > int(runs), "it was asked before the next whole second"
    run.delete()


def test_the_termination_message_is_a_file_or_the_end_of_the_log(node: Node) -> None:
    asked = pod(
        container("echo from-file > /dev/termination-log; exit 1", "file"),
        container("echo from-log; exit 1", "log", terminationMessagePolicy="FallbackToLogsOnError"),
        container("echo from-log; exit 1", "none"),
        restartPolicy="Never",
    )
    ended = node.start(asked).wait_ended().containers
    assert {name: end.message for name, end in ended.items()} == {
        "file": "from-file\n",
        "log": "from-log\n",
        "none": "",
    }


def test_a_dead_node_leaves_nobody_time_to_say_good_bye(node: Node) -> None:
    run = node.start(pod(container(UNTIL_TERM), init=(sidecar(UNTIL_TERM, "side"),)))
    wait_up(run)
    result = run.kill_node()
    assert {ended.exit_code for ended in result.containers.values()} == {137}
    assert "bye" not in run.logs("main") + run.logs("side")


def test_a_pod_can_be_deleted_while_it_starts(node: Node) -> None:
    run = node.start(pod(container(UNTIL_TERM), init=(container(UNTIL_TERM, "init"),)))
    run.wait_log("init", "up")
    result = run.delete()
    assert result.containers["init"].exit_code == 0
    assert run.containers["main"].lives == 0


def test_a_missing_secret_key_blocks_the_pod(node: Node) -> None:
    reference = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}
    run = node.start(pod(container("true", env=[reference])))
    with pytest.raises(BlockedPod, match="CreateContainerConfigError: secretKeyRef 'absent' not found"):
        run.wait_started()
    run.delete()
