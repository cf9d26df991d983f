"""A Job that restores, seen from outside: what is read of its log, and why it has no answer."""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from injector.command import restoring
from injector.command.kubectl import KubectlError, MissingRight
from injector.command.restoring import Told, Unrestored, read, running, sentence
from injector.command.subject import Subject
from injector.pod import job
from injector.pod.job import CONTAINER, Asked
from tests import reviews
from tests.jobs import Cluster

PATHS = ["/data/a.db", "/data/b.db"]
ASKED = Asked("verify", PATHS)
PROXY = {"name": "istio-proxy", "state": {"running": {}}}
GOOD = '{"database":0,"txid":"2a","changed":"2026-01-01T00:00:00Z","bytes":4096,"seconds":1,"tries":1,"sha256":""}'


def subject(name: str = "pod/web", living: bool = True) -> Subject:
    pod = reviews.injected(reviews.pod(path=",".join(PATHS)))
    return Subject(name, "default", job.source(pod, reviews.DEFAULTS), living, True, pod)


def ended(reason: str, message: str = "") -> dict[str, Any]:
    return {"name": CONTAINER, "state": {"terminated": {"reason": reason, "message": message}}}


class Slow(Cluster):
    """A mock whose Job has a Pod with this status (None: none), and this log."""

    def __init__(
        self, status: dict[str, Any] | None, log: str = "", events: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__()
        self.status, self.log, self.events = status, log, events

    def find(self, resource: str, **_: Any) -> list[dict[str, Any]]:
        if resource == "events":
            if self.events is None:
                raise KubectlError("you may not")
            return self.events
        return [] if self.status is None else [{"metadata": {"name": "p"}, "status": self.status}]

    def create(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}

    def logs(self, *_: Any, **__: Any) -> str:
        return self.log


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "UNMADE_SECONDS", "STUCK_SECONDS", "LATE_SECONDS"):
        monkeypatch.setattr(restoring, name, 0.01)


def test_a_log_is_read_line_by_line_and_words_belong_to_what_fails_after_them() -> None:
    log = "\n".join(
        [
            "words of Litestream",
            '{"database":0,"table":"t","rows":3}',
            '{"database":0,"table":"a \\"b\\"\\n","rows":0}',
            GOOD,
            'time=x level=ERROR msg="failed to run" error="no \\"such\\" bucket"',
            '{"database":1,"failed":"unreadable"}',
            "last words",
        ]
    )
    first, second = read(log, PATHS)[0]
    assert first == Told("/data/a.db", "2a", "2026-01-01T00:00:00Z", 4096, 1, 1, tables={"t": 3, 'a "b"\n': 0})
    assert (second.path, second.failed, second.why) == ("/data/b.db", "unreadable", 'no "such" bucket')
    assert read(log, PATHS)[1] == "last words"


@pytest.mark.parametrize(
    "line",
    [
        '{"database":2,"failed":"empty"}',
        '{"database":-1,"failed":"empty"}',
        '{"database":true,"failed":"empty"}',
        '{"database":0,"path":"/etc"}',
        '{"database":0,"txid":1}',
        '{"database":0}',
        '{"database":0,"failed":"emp',
        f'{{"database":0,"txid":"2a","bytes":1{"0" * 4000}}}',
        '{"database":' + "[" * 100_000,
        "[]",
        "",
    ],
)
def test_a_line_that_only_looks_like_one_is_none(line: str) -> None:
    assert read(line, PATHS)[0] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Error: no such bucket", ""], "no such bucket"),
        (['level=INFO msg="a b"'], "a b"),
        (["\x1b[31mred"], "\\x1b[31mred"),
        (["x" * 1000], "x" * 299 + "…"),
        ([], ""),
    ],
)
def test_what_was_said_last_becomes_part_of_a_sentence(words: list[str], said: str) -> None:
    assert sentence(words) == said


@pytest.mark.parametrize(
    ("status", "log", "said"),
    [
        (
            {
                "phase": "Failed",
                "reason": "Evicted",
                "message": 'Usage of EmptyDir volume "restored" exceeds the limit',
            },
            "",
            'the Pod of the Job was ended (Evicted): Usage of EmptyDir volume "restored" exceeds the limit',
        ),
        (
            {"phase": "Failed", "containerStatuses": [PROXY, ended("OOMKilled")]},
            GOOD,
            "the restore needs more memory than it may have (OOMKilled): write a higher memory-limit",
        ),
        (
            {"phase": "Failed", "containerStatuses": [ended("Error")]},
            "sh: cat: not found",
            "the Pod of the Job ended without an answer: sh: cat: not found",
        ),
        (
            {"phase": "Failed", "containerStatuses": [ended("StartError", 'exec: "/bin/sh": no such file')]},
            "",
            'the Pod of the Job can\'t start (StartError): exec: "/bin/sh": no such file',
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}}
                ],
            },
            "",
            r'the Pod of Job litestream-verify-web-\w+ can\'t start: CreateContainerConfigError: secret "s" not found',
        ),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_pod_without_an_answer_is_one_sentence_and_is_deleted(status: dict[str, Any], log: str, said: str) -> None:
    cluster = Slow(status, log)
    with (
        pytest.raises(Unrestored, match=said.replace("(", r"\(").replace(")", r"\)")),
        running(cluster, subject(), ASKED),
    ):
        pass
    assert len(cluster.deleted) == 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("faults", "error", "asked"),
    [
        (restoring.MOST_FAULTS, KubectlError("connection refused"), restoring.MOST_FAULTS + 1),
        (restoring.MOST_FAULTS + 1, KubectlError("connection refused"), None),
        (1, MissingRight("you may not list pods"), None),
    ],
)
def test_a_cluster_that_is_away_for_a_moment_ends_nothing(faults: int, error: KubectlError, asked: int | None) -> None:
    class Away(Slow):
        """A mock whose first questions have no answer."""

        questions = 0

        def find(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
            self.questions += 1
            if self.questions <= faults:
                raise error
            return super().find("pods")

    cluster = Away({"phase": "Succeeded"}, GOOD)
    if asked is None:
        with pytest.raises(type(error), match=str(error)):
            running(cluster, subject(), ASKED._replace(databases=PATHS[:1])).__enter__()
    else:
        with running(cluster, subject(), ASKED._replace(databases=PATHS[:1])) as run:
            assert (run.told[0].txid, cluster.questions) == ("2a", asked)
    assert len(cluster.deleted) == 1


@pytest.mark.parametrize("mode", ["verify", "fill"])
def test_a_proxy_that_somebody_puts_into_each_pod_is_not_waited_for(mode: job.Mode) -> None:
    cluster = Slow({"phase": "Running", "containerStatuses": [PROXY, ended("Completed")]}, GOOD)
    with running(cluster, subject(), ASKED._replace(mode=mode, databases=PATHS[:1])) as run:
        assert [one.txid for one in run.told] == ["2a"]


@pytest.mark.usefixtures("hasty")
def test_a_pod_that_was_ended_before_it_began_has_no_log() -> None:
    class Silent(Slow):
        """A mock without a log."""

        def logs(self, *_: Any, **__: Any) -> str:
            raise KubectlError("container restore is waiting to start")

    status = {"phase": "Failed", "reason": "NodeShutdown", "message": "the node goes"}
    with pytest.raises(Unrestored, match=r"the Pod of the Job was ended \(NodeShutdown\): the node goes"):
        running(Silent(status), subject(), ASKED).__enter__()
    with pytest.raises(KubectlError, match="waiting to start"):
        running(Silent({"phase": "Failed"}), subject(), ASKED).__enter__()


@pytest.mark.usefixtures("hasty")
def test_a_job_whose_pod_is_refused_says_by_whom() -> None:
    events = [{"type": "Normal", "message": "x"}, {"type": "Warning", "message": "violates PodSecurity"}]
    with pytest.raises(Unrestored, match=r"no Pod is made for Job .*: violates PodSecurity"):
        running(Slow(None, events=events), subject(), ASKED).__enter__()
    with pytest.raises(Unrestored, match=r"no Pod is made for Job .*: `kubectl describe job .*` says why"):
        running(Slow(None), subject(), ASKED).__enter__()


@pytest.mark.usefixtures("hasty")
def test_a_job_whose_time_is_over_says_what_its_pod_has_waited_for() -> None:
    class Over(Slow):
        """A mock whose Pod is seen once; then the Job's controller has ended it."""

        def find(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
            found, self.status = super().find("pods"), None
            return found

        def get(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {"status": {"conditions": [{"type": "Failed", "reason": "DeadlineExceeded", "message": "too long"}]}}

    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    said = r"is gone \(Unschedulable: 0/3 nodes\): too long; write a longer --timeout$"
    with pytest.raises(Unrestored, match=said):
        running(Over({"phase": "Pending", "conditions": [condition]}), subject(), ASKED).__enter__()


@pytest.mark.usefixtures("hasty")
def test_a_pod_that_no_node_takes_is_waited_for_as_long_as_was_asked() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    cluster = Slow({"phase": "Pending", "conditions": [condition]})
    with pytest.raises(Unrestored, match="took more than 0 s: Unschedulable: 0/3 nodes"):
        running(cluster, subject(), ASKED._replace(seconds=0)).__enter__()
    assert len(cluster.deleted) == 1


def test_ctrl_c_leaves_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def press(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", press)
    cluster = Slow({"phase": "Running"})
    with pytest.raises(KeyboardInterrupt):
        running(cluster, subject(), ASKED).__enter__()
    assert len(cluster.deleted) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_no_job_either(number: signal.Signals) -> None:
    class Ending(Slow):
        """A mock that ends the command as soon as it asks for the Pod."""

        def find(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
            signal.raise_signal(number)
            return []

    cluster, before = Ending(None), signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    try:
        with pytest.raises(KeyboardInterrupt):
            running(cluster, subject(), ASKED).__enter__()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert len(cluster.deleted) == 1


def test_a_job_that_can_not_be_deleted_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Forbidden(Slow):
        """A mock that deletes nothing."""

        def delete(self, *_: Any, **__: Any) -> None:
            raise KubectlError("you may not delete jobs.batch")

    second = GOOD.replace('"database":0', '"database":1')
    with running(Forbidden({"phase": "Succeeded"}, f"{GOOD}\n{second}"), subject(), ASKED) as run:
        assert [one.txid for one in run.told] == ["2a", "2a"]
    assert (
        "may be left, and goes by itself 600 s after its end: you may not delete jobs.batch" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("pod/web-0", "litestream-verify-web-0"),
        ("statefulset/web, Pod web-1", "litestream-verify-web-1"),
        ("pod/" + "x" * 34, "litestream-verify-" + "x" * 34),
    ],
)
def test_a_jobs_name_is_that_of_whom_it_restores(name: str, made: str) -> None:
    assert restoring.job_name("verify", subject(name), restoring.LONGEST_CRON_JOB) == made


def test_no_two_cron_jobs_of_a_workload_have_one_name() -> None:
    """The second that is applied would replace the first, which nobody would verify any more."""
    long = "statefulset/x, Pod " + "x" * 33 + "-"
    asked = [(f"{long}0", ""), (f"{long}1", ""), ("pod/web-0", ""), ("pod/web-0", PATHS[0]), ("pod/web-0", PATHS[1])]
    asked += [(f"{kind}/web-0", "") for kind in ("deployment", "job", "cronjob")] + [("pod/a.b", ""), ("pod/a-b", "")]
    names = [restoring.job_name("verify", subject(name), restoring.LONGEST_CRON_JOB, one) for name, one in asked]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) == restoring.LONGEST_CRON_JOB
    assert all(re.fullmatch("litestream-verify-[a-z0-9-]+[a-z0-9]", name) for name in names)
