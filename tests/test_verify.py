"""`verify` with a real Litestream and S3: what it says of good replicas, and of those that are not."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from injector import GROUP
from injector.command import FOUND, UNREADABLE, restore, verify
from injector.command.kubectl import KubectlError
from injector.command.restoring import Told, Unrestored
from injector.command.verify import Choice
from injector.pod import job
from tests import prometheus, reviews
from tests.durability.stage import NATIVE_03, NATIVE_05, Row, Stage, end, write
from tests.jobs import Cluster
from tests.podrunner import Node
from tests.podrunner.images import litestream
from tests.podrunner.proxy import Proxy
from tests.podrunner.s3 import S3, Keys
from tests.replicas import Writer
from tests.terminal import ROOT

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATH = "/data/app.db"
REPLICA = "default/pod/web/data/app.db"


class Said(NamedTuple):
    """The exit code, and what was printed, as text and (with `json`) as what it says of each database."""

    code: int
    output: str
    error: str

    @property
    def databases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.output)["databases"]
        return found


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(cluster: Cluster, workload: str = "pod/web", **choice: Any) -> Said:
        code = verify.run(Choice(workload, **{"output": "json", **choice}), cluster, reviews.DEFAULTS)
        printed = capsys.readouterr()
        assert cluster.deleted == list(cluster.runs), "a Job is left"
        return Said(code, printed.out, printed.err)

    return run


@contextlib.contextmanager
def cluster_of(s3: S3, endpoint: str = "", keys: Keys | None = None, **annotations: str) -> Iterator[Cluster]:
    """A cluster in which the Pod `web` is injected, and its node is dead."""
    secret = s3.secret if keys is None else {"AWS_ACCESS_KEY_ID": keys.access, "AWS_SECRET_ACCESS_KEY": keys.secret}
    with Node(secrets={"litestream-hook-secret": secret}) as node:
        cluster = Cluster(node)
        asked = {"path": PATH, "endpoint": endpoint or s3.endpoint, **annotations}
        cluster.put("pods", reviews.injected(reviews.pod(**asked)))
        yield cluster


@pytest.mark.slow
@pytest.mark.containers
def test_the_replica_of_a_living_pod_is_good_and_stays_as_it_is(s3: S3, verified: Callable[..., Said]) -> None:
    row = Row("", NATIVE_05)
    with Stage(NATIVE_05, s3) as stage:
        cluster = Cluster(stage.node)
        run = stage.start()
        write(run, row, 200)
        cluster.put("pods", run.pod)
        beside = verified(cluster, f"pod/{stage.name}").databases[0]
        promised = end(run, row)
        before = {key: s3.get("litestream", key) for key in s3.list_keys("litestream", f"default/pod/{stage.name}/")}
        said = verified(cluster, f"pod/{stage.name}", full=True)
        found = said.databases[0]
        after = {key: s3.get("litestream", key) for key in s3.list_keys("litestream", f"default/pod/{stage.name}/")}
    assert beside["good"], beside
    assert 0 < beside["tables"][0]["rows"] <= len(promised)
    assert (said.code, found["good"], found["check"], found["tries"]) == (0, True, "full", 1)
    assert found["tables"] == [{"name": "entry", "rows": len(promised)}]
    assert found["bytes"] > 4096
    assert found["replica"] == f"default/pod/{stage.name}/data/app.db"
    assert before == after


class Held(Proxy):
    """In front of an S3 server, it holds up the first request for a file of one level until the file is deleted."""

    def __init__(self, s3: S3, level: str) -> None:
        super().__init__(s3.port)
        self._s3, self._level, self.held = s3, level, threading.Event()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        super()._pump(source, _Gate(sink, self))  # type: ignore[arg-type]

    def seen(self, data: bytes) -> None:
        """Called with each piece before it goes on."""
        verb, _, rest = data.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode(errors="replace")
        if verb == b"GET" and path.endswith(".ltx") and f"/{self._level}/" in path and not self.held.is_set():
            self.held.set()
            key = path.removeprefix("/litestream/")
            while not self._closed.is_set() and key in self._s3.list_keys("litestream", key):
                self._closed.wait(0.1)


class _Gate:
    """A socket that shows what it sends."""

    def __init__(self, sink: socket.socket, proxy: Held) -> None:
        self._sink, self._proxy = sink, proxy

    def sendall(self, data: bytes) -> None:
        self._proxy.seen(data)
        self._sink.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


@pytest.mark.slow
@pytest.mark.containers
@pytest.mark.parametrize("level", ["0000", "0009"])
def test_a_restore_that_the_writers_retention_overtakes_is_done_again(
    s3: S3, level: str, tmp_path: Path, verified: Callable[..., Said]
) -> None:
    """What upstream's issues 1270 (level 0) and 1450 (the snapshots, level 9) tell: a file of the plan is deleted."""
    times = {"l0-retention": "1s", "l0-retention-check-interval": "500ms", "levels": [{"interval": "1s"}]}
    writer = Writer(tmp_path, s3, f"overtaken/at-{level}", snapshot={"interval": "3s", "retention": "3s"}, **times)
    writer.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.05):
            writer.execute("INSERT INTO t VALUES (1)")

    thread = threading.Thread(target=go_on)
    with (
        writer.replicating(),
        Held(s3, level) as proxy,
        cluster_of(s3, proxy.endpoint, replica_path=f"overtaken/at-{level}") as cluster,
    ):
        thread.start()
        try:
            while not s3.list_keys("litestream", f"overtaken/at-{level}/{level}/"):
                time.sleep(0.1)
            said = verified(cluster)
            log = next(iter(cluster.runs.values())).logs(job.CONTAINER)
        finally:
            stop.set()
            thread.join()
    assert proxy.held.is_set()
    (found,) = said.databases
    assert (said.code, found["good"]) == (0, True), (said, log)
    assert found["tries"] > 1, "the first restore was not overtaken"


@pytest.mark.slow
@pytest.mark.containers
def test_what_is_wrong_with_a_replica_is_one_sentence(
    s3: S3, tmp_path: Path, verified: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster_of(s3, replica_path="wrong/{database}") as cluster:
        empty = verified(cluster)
        writer = Writer(tmp_path, s3, "wrong/data/app.db")
        writer.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
        writer.write("INSERT INTO t VALUES (2)")
        good = verified(cluster)
        (key, *_) = s3.list_keys("litestream", "wrong/")
        content = s3.get("litestream", key)
        s3.request("PUT", f"/litestream/{key}", content[:200] + bytes(len(content) - 200))
        broken = verified(cluster, output="text")
        monkeypatch.setattr(job, "PATIENCE_SECONDS", 3)
        s3.pause()
        try:
            away = verified(cluster)
        finally:
            s3.resume()
    with cluster_of(s3, keys=Keys("key", "wrong")) as cluster:
        stranger = verified(cluster)
    where = f"bucket litestream at {s3.endpoint}"
    assert (empty.code, empty.databases[0]["problem"]) == (
        FOUND,
        f"there is no backup at wrong/data/app.db in {where} (no matching backup files available)",
    )
    assert (good.code, good.databases[0]["tables"]) == (0, [{"name": "t", "rows": 2}])
    assert broken.code == FOUND
    assert f"NOT GOOD\n  the replica at wrong/data/app.db in {where} can't be restored: " in broken.output
    assert len(broken.output.splitlines()) == 2, broken.output
    assert away.databases[0]["problem"] == f"{where} has not answered in 3 s"
    assert stranger.databases[0]["problem"].startswith(f"{where} can't be read: ")
    assert "SignatureDoesNotMatch" in stranger.databases[0]["problem"]


@pytest.mark.slow
@pytest.mark.containers
def test_each_of_several_databases_is_told_with_its_tables_whatever_they_are_called(
    s3: S3, tmp_path: Path, verified: Callable[..., Said]
) -> None:
    names = ["plain", 'quo"te', "it's", "two\nlines", "; DROP TABLE plain; --", "ünï", "\x1b[31mred", "."]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    for number, path in enumerate(("data/a.db", "data/b.db")):
        (tmp_path / str(number)).mkdir()
        writer = Writer(tmp_path / str(number), s3, f"several/{path}")
        writer.write(*(f"CREATE TABLE {name} (x)" for name in quoted[: 1 + 7 * number]), "INSERT INTO plain VALUES (1)")
    three = "/data/a.db,/data/b.db,/data/never written.db"
    with cluster_of(s3, path=three, replica_path="several/{database}") as cluster:
        said = verified(cluster)
        text = verified(cluster, output="text", database="/data/b.db")
        assert run_quietly(cluster, "/data/c.db") == UNREADABLE
    first, second, third = said.databases
    assert [(one["database"], one["good"]) for one in said.databases] == [
        ("/data/a.db", True),
        ("/data/b.db", True),
        ("/data/never written.db", False),
    ]
    assert said.code == FOUND
    assert first["tables"] == [{"name": "plain", "rows": 1}]
    assert {one["name"]: one["rows"] for one in second["tables"]} == {name: int(name == "plain") for name in names}
    assert third["problem"].startswith("there is no backup at several/data/never written.db in bucket")
    assert (text.code, text.output.splitlines()[0]) == (0, "pod/web in default, /data/b.db: good")
    assert "\\x1b[31mred 0" in text.output


def run_quietly(cluster: Cluster, database: str) -> int:
    return verify.run(Choice("pod/web", database=database), cluster, reviews.DEFAULTS)


@pytest.mark.slow
@pytest.mark.containers
def test_the_replica_of_a_workload_whose_pods_are_all_gone_is_found_by_its_template(
    s3: S3, tmp_path: Path, verified: Callable[..., Said]
) -> None:
    writer = Writer(tmp_path, s3, "default/statefulset/shop-0/data/app.db")
    writer.write("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
    template = reviews.pod(path=PATH, endpoint=s3.endpoint)
    template["metadata"] = {"annotations": template["metadata"]["annotations"]}
    workload = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "shop"}}
    with cluster_of(s3) as cluster:
        cluster.put("statefulsets.apps", {**workload, "spec": {"replicas": 0, "template": template}})
        gone = verified(cluster, "statefulset/shop")
        cluster.put("statefulsets.apps", {**workload, "spec": {"replicas": 2, "template": template}})
        two = verified(cluster, "sts/shop")
        one = verified(cluster, "sts/shop", pod="shop-0")
    assert (gone.code, gone.databases[0]["tables"]) == (0, [{"name": "t", "rows": 1}])
    assert gone.databases[0]["workload"] == "statefulset/shop"
    assert [(each["workload"], each["good"]) for each in two.databases] == [
        ("statefulset/shop, Pod shop-0", True),
        ("statefulset/shop, Pod shop-1", False),
    ]
    assert "so give this command the operator's options, such as --replica-prefix" in two.databases[1]["problem"]
    assert (one.code, len(one.databases)) == (0, 1)


@pytest.mark.slow
@pytest.mark.containers
def test_an_image_that_can_not_tell_asks_for_another(
    s3: S3, tmp_path: Path, verified: Callable[..., Said], capsys: pytest.CaptureFixture[str]
) -> None:
    writer = Writer(tmp_path, s3, "scratch/data/app.db")
    writer.write("CREATE TABLE t (x)")
    image = "docker.io/litestream/litestream:0.5.17"
    with cluster_of(s3, image=f"{image}-scratch", replica_path="scratch/{database}") as cluster:
        assert verify.run(Choice("pod/web"), cluster, reviews.DEFAULTS) == UNREADABLE
        assert f"so no Job can use it: write --image {image}, which" in capsys.readouterr().err
        assert not cluster.runs
        assert verified(cluster, image=image).code == 0


@pytest.mark.slow
@pytest.mark.containers
def test_a_replica_of_litestream_0_3_is_verified_by_a_newer_image(s3: S3, verified: Callable[..., Said]) -> None:
    row = Row("", NATIVE_03)
    images = {"litestream/litestream:0.5.17": litestream("0.5.17")}
    with Stage(NATIVE_03, s3) as stage, Node(images=images, secrets={"litestream-hook-secret": s3.secret}) as node:
        run = stage.start()
        write(run, row, 100)
        promised = end(run, row)
        cluster = Cluster(node)
        cluster.put("pods", run.pod)
        said = verified(cluster, f"pod/{stage.name}", image="litestream/litestream:0.5.17")
    (found,) = said.databases
    assert (said.code, found["transaction"], found["tables"]) == (0, None, [{"name": "entry", "rows": len(promised)}])


def several(monkeypatch: pytest.MonkeyPatch, *ends: list[Told] | Exception) -> Cluster:
    """A StatefulSet of as many Pods; a mock tells of each, in place of a Job, how its verification ends."""
    left = iter(ends)

    def end(*_: object) -> list[Told]:
        one = next(left)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(verify, "_verified", end)
    pod = reviews.pod(path=PATH)
    template = {"metadata": {"annotations": pod["metadata"]["annotations"]}, "spec": pod["spec"]}
    web = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}}
    cluster = Cluster()
    cluster.put("statefulsets.apps", {**web, "spec": {"replicas": len(ends), "template": template}})
    return cluster


def test_what_is_known_of_one_pod_is_told_though_another_can_not_be_verified(
    monkeypatch: pytest.MonkeyPatch, verified: Callable[..., Said]
) -> None:
    broken, good = [Told(PATH, failed="broken", why="no")], [Told(PATH, txid="2a", tries=1)]
    said = verified(several(monkeypatch, broken, Unrestored("evicted"), good), "sts/web", output="text")
    assert said.code == FOUND
    assert said.error == "statefulset/web, Pod web-1: evicted\n"
    assert [line for line in said.output.splitlines() if not line.startswith("  ")] == [
        f"statefulset/web, Pod web-0 in default, {PATH}: NOT GOOD",
        "",
        f"statefulset/web, Pod web-2 in default, {PATH}: good",
    ]
    away = KubectlError("there is no cluster")
    assert verified(several(monkeypatch, good, away, good), "sts/web").code == UNREADABLE
    assert verified(several(monkeypatch, away, good), "sts/web", output="text").output == ""


@pytest.mark.parametrize("command", [verify.run, restore.run])
def test_no_pod_sends_codes_to_the_terminal_by_what_its_databases_are_called(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may change a Pod can write its status, too."""
    pod = reviews.injected(reviews.pod(path=PATH))
    own = pod["metadata"]["annotations"]
    told = json.loads(own[f"{GROUP}/status"])
    own[f"{GROUP}/status"] = json.dumps({**told, "databases": {"/data/\x1b[2J.db": "a", PATH: "b"}})
    cluster = Cluster()
    cluster.put("pods", pod)
    choice = Choice("pod/web", database="/x") if command is verify.run else restore.Choice("pod/web", to="here.db")
    assert command(choice, cluster, reviews.DEFAULTS) == UNREADABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert "/data/\\x1b[2J.db" in line


def scheduled(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `--schedule` prints for a Pod."""
    cluster = Cluster()
    cluster.put("pods", reviews.injected(reviews.pod(path=PATH)))
    assert verify.run(Choice("pod/web", schedule="0 3 * * *"), cluster, reviews.DEFAULTS) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def test_a_schedule_is_a_cron_job_of_the_same_pod_and_its_alerts(capsys: pytest.CaptureFixture[str]) -> None:
    cron_job, rule = scheduled(capsys)
    assert (cron_job["kind"], cron_job["spec"]["schedule"]) == ("CronJob", "0 3 * * *")
    assert cron_job["spec"]["concurrencyPolicy"] == "Forbid"
    source = job.source(reviews.injected(reviews.pod(path=PATH)), reviews.DEFAULTS)
    alone = job.job(source, job.Asked("verify", [PATH]), "x", "default")
    assert cron_job["spec"]["jobTemplate"]["spec"]["template"] == alone["spec"]["template"]
    assert rule["kind"] == "PrometheusRule"
    name = cron_job["metadata"]["name"]
    assert name == "litestream-verify-web"
    assert all(f'cronjob="{name}"' in one["expr"] for one in rule["spec"]["groups"][0]["rules"])


@pytest.mark.parametrize(("seconds", "hours"), [(3600, 2), (5 * 3600, 6), (5 * 3600 + 1, 7)])
def test_no_alert_fires_while_a_verification_may_still_run(
    seconds: int, hours: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster()
    cluster.put("pods", reviews.injected(reviews.pod(path=PATH)))
    asked = Choice("pod/web", schedule="0 3 * * *", seconds=seconds)
    assert verify.run(asked, cluster, reviews.DEFAULTS) == 0
    _, rule = yaml.safe_load_all(capsys.readouterr().out)
    assert rule["spec"]["groups"][0]["rules"][0]["for"] == f"{hours}h"
    assert verify.run(asked._replace(output="json"), cluster, reviews.DEFAULTS) == UNREADABLE
    assert capsys.readouterr().out == ""


def test_the_component_has_the_same_alerts_for_all_cron_jobs() -> None:
    component = yaml.safe_load((ROOT / "k8s/components/verify/prometheusrule.yaml").read_text())
    (found,) = component["spec"]["groups"]
    assert found["rules"] == verify.alerts('cronjob=~"litestream-verify-.*"')


@pytest.mark.slow
@pytest.mark.skipif(prometheus.missing() is not None, reason=str(prometheus.missing()))
def test_the_alerts_fire_when_a_verification_failed_or_did_not_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Four days of kube-state-metrics, by promtool: the third night's run fails, the fourth never begins."""
    _, rule = scheduled(capsys)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    labels = 'namespace="default",cronjob="litestream-verify-web"'
    day, three = 86400, 3 * 3600
    series = {
        "kube_cronjob_created": "0x5760",
        "kube_cronjob_spec_suspend": "0x5760",
        "kube_cronjob_status_last_schedule_time": f"_x180 {three}x1439 {day + three}x1439 {2 * day + three}x2700",
        "kube_cronjob_status_last_successful_time": f"_x181 {three + 9}x1439 {day + three + 9}x4140",
        "kube_cronjob_next_schedule_time": " ".join(
            f"{start * day + three}x{count}" for start, count in ((0, 179), (1, 1439), (2, 1439), (3, 2700))
        ),
    }
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": f"{name}{{{labels}}}", "values": text} for name, text in series.items()],
                "alert_rule_test": [
                    {"eval_time": f"{hours}h", "alertname": alert, "exp_alerts": fires}
                    for hours, alert, fires in (
                        (47, "LitestreamVerifyFailed", []),
                        (52, "LitestreamVerifyFailed", []),
                        (54, "LitestreamVerifyFailed", [expected(rule, "LitestreamVerifyFailed")]),
                        (54, "LitestreamVerifyMissed", []),
                        (78, "LitestreamVerifyMissed", [expected(rule, "LitestreamVerifyMissed")]),
                    )
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    prometheus.promtool("check", "rules", tmp_path / "rules.yaml")
    prometheus.promtool("test", "rules", tmp_path / "test.yaml")


def expected(rule: dict[str, Any], alert: str) -> dict[str, Any]:
    """What promtool expects of an alert of this rule that fires."""
    (found,) = (one for one in rule["spec"]["groups"][0]["rules"] if one["alert"] == alert)
    labels = {"namespace": "default", "cronjob": "litestream-verify-web"}
    texts = found["annotations"]
    filled = {
        key: text.replace("{{ $labels.namespace }}/{{ $labels.cronjob }}", "default/litestream-verify-web")
        for key, text in texts.items()
    }
    return {"exp_labels": {**labels, **found["labels"]}, "exp_annotations": filled}
