"""Alerts and dashboard: a real Prometheus asks real webhooks and real Litestreams, in health and in trouble.

Durations are a hundredth of what the rules say (a fiftieth where a busy machine could look like the trouble), except
where promtool tests them on made-up series.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from injector.annotations import operator_file
from injector.pod import containers
from injector.stores import Place
from injector.tls import certificate
from tests import prometheus, reviews, running, schemas, standin
from tests.podrunner.images import litestream_binary
from tests.podrunner.proxy import Proxy
from tests.podrunner.s3 import REGION, S3, Keys, free_ports
from tests.prometheus import Prometheus, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "k8s/components/monitoring"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())["spec"]
ALERTS: dict[str, Any] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
OPERATING = (ROOT / "docs/operating.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
FASTER = 100
# A machine that is busy with other things for some seconds uploads, syncs and answers late as well.
LESS_FAST = dict.fromkeys(
    ["LitestreamReplicationBehind", "LitestreamDatabaseNeverSynced", "LitestreamSyncErrors", "LitestreamHookSlow"],
    FASTER // 2,
)
MILLISECONDS = {"s": 1000, "m": 60_000, "h": 3_600_000}
SELECTOR = re.compile(r"\b(?:litestream_|process_|kube_|up\b)\w*(?:\{[^}]*\})?")

# Who must set off which alert in the laboratory, and nobody else any other.
EXPECTED = {
    ("LitestreamReplicationStalled", "silent"),
    ("LitestreamReplicationBehind", "silent"),
    ("LitestreamReplicationStalled", "silent-0.3"),
    ("LitestreamReplicationBehind", "slow"),
    ("LitestreamSyncErrors", "wrong-keys"),
    ("LitestreamDatabaseNeverSynced", "wrong-keys"),
    ("LitestreamDatabaseNeverSynced", "missing"),
    ("LitestreamDown", "gone"),
    ("LitestreamRestarts", "restarting"),
    ("LitestreamMissing", "bare"),
    ("LitestreamHookDown", "away"),
    ("LitestreamHookErrors", "faulty"),
    ("LitestreamHookSlow", "faulty"),
    ("LitestreamHookGuardErrors", "faulty"),
    ("LitestreamHookDefaultsBroken", "faulty"),
    ("LitestreamHookCertificateExpires", "faulty-1"),
    ("LitestreamHookReplicasDisagree", "faulty"),
}
# What is wrong from the start; all else is healthy first.
FROM_THE_START = {
    ("LitestreamSyncErrors", "wrong-keys"),
    ("LitestreamDatabaseNeverSynced", "wrong-keys"),
    ("LitestreamDatabaseNeverSynced", "missing"),
    ("LitestreamMissing", "bare"),
    ("LitestreamHookDown", "away"),
    ("LitestreamHookCertificateExpires", "faulty-1"),
    ("LitestreamHookReplicasDisagree", "faulty"),
}
HEALTHY_SECONDS = 12
TROUBLE_SECONDS = 180  # at most: it ends when every alert has fired
AFTERWARDS_SECONDS = 5  # in which an alert that is wrong may still fire
MISSED_SCRAPES_SECONDS = 10  # in which a busy machine may answer Prometheus too late

available = pytest.mark.skipif(prometheus.missing() is not None, reason=str(prometheus.missing()))


def faster(text: str, times: int = FASTER) -> str:
    """A duration, or an expression with durations in it, so many times shorter."""

    def shorter(found: re.Match[str]) -> str:
        return f"{int(found[1]) * MILLISECONDS[found[2]] // times}ms"

    return re.sub(r"\b(\d+)([smh])\b", shorter, text)


def faster_rules() -> dict[str, Any]:
    return {
        "groups": [
            {
                "name": group["name"],
                "rules": [
                    {
                        key: faster(value, LESS_FAST.get(rule["alert"], FASTER)) if key in {"expr", "for"} else value
                        for key, value in rule.items()
                    }
                    for rule in group["rules"]
                ],
            }
            for group in RULES["groups"]
        ]
    }


def filled(expression: str) -> str:
    """A query of the dashboard as Grafana sends it when everything is selected."""
    text = expression.replace("$__rate_interval", "10m")
    for name, variable in VARIABLES.items():
        text = text.replace(f"${name}", variable.get("allValue", ""))
    assert "$" not in text, "a variable that the dashboard does not have"
    return text


class Sidecar:
    """A real Litestream that replicates two databases; nobody writes to the second one after its table."""

    def __init__(self, folder: Path, name: str, port: int, endpoint: str, keys: Keys, release: str) -> None:
        self.name, self._port, self._release = name, port, release
        self._folder = folder / name
        self._folder.mkdir()
        self.databases = [self._folder / "busy.db", self._folder / "idle.db"]
        self._environment = {
            "PATH": os.environ["PATH"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": keys.access,
            "AWS_SECRET_ACCESS_KEY": keys.secret,
        }
        replica = {
            "type": "s3",
            "bucket": "litestream",
            "endpoint": endpoint,
            "region": REGION,
            "force-path-style": True,
            "sync-interval": "1s",
        }
        config = {
            "addr": f"127.0.0.1:{self._port}",
            "dbs": [
                {"path": str(database), "replicas": [{**replica, "path": f"{name}/{database.name}"}]}
                for database in self.databases
            ],
        }
        (self._folder / "litestream.yml").write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        return Target(self._port, "litestream-hook/litestream", "apps", self.name, containers.REPLICATE)

    def create(self) -> None:
        """Make the databases, as the application does."""
        for database in self.databases:
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode = wal")
                connection.execute("CREATE TABLE entry (text)")

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [litestream_binary(self._release), "replicate", "-config", self._folder / "litestream.yml"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Writer(threading.Thread):
    """Writes five rows a second to each of the databases, until stopped."""

    def __init__(self, databases: list[Path]) -> None:
        super().__init__()
        self._databases, self._done = databases, threading.Event()

    def run(self) -> None:
        with contextlib.ExitStack() as open_files:
            connections = [
                open_files.enter_context(contextlib.closing(sqlite3.connect(path, timeout=30)))
                for path in self._databases
            ]
            while not self._done.wait(0.2):
                for connection in connections:
                    connection.execute("INSERT INTO entry VALUES (hex(randomblob(100)))")
                    connection.commit()

    def stop(self) -> None:
        self._done.set()
        self.join()


INJECT = "annotation_litestream_hook_kaidotio_github_io_inject"


def kube_state_metrics(port: int, stack: contextlib.ExitStack) -> None:
    """Stands in for kube-state-metrics, which needs a cluster: what it says of four Pods, and of one CronJob."""
    registry = CollectorRegistry()

    def gauge(name: str, value: float, **labels: str) -> None:
        if name not in gauges:
            gauges[name] = Gauge(name, name, list(labels), registry=registry)
        gauges[name].labels(**labels).set(value)

    gauges: dict[str, Gauge] = {}
    for pod in ("healthy", "ordinary", "bare", "done"):
        gauge("kube_pod_annotations", 1, namespace="apps", pod=pod, **{INJECT: "true"})
        for phase in ("Running", "Succeeded", "Failed"):
            is_it = phase == ("Succeeded" if pod == "done" else "Running")
            gauge("kube_pod_status_phase", int(is_it), namespace="apps", pod=pod, phase=phase)
    ours = {"namespace": "apps", "container": containers.REPLICATE}
    gauge("kube_pod_init_container_info", 1, pod="healthy", **ours)
    gauge("kube_pod_container_info", 1, pod="ordinary", **ours)
    verified = {"namespace": "apps", "cronjob": "litestream-verify-notes"}
    gauge("kube_cronjob_status_last_successful_time", time.time() - 3600, **verified)
    server, thread = start_http_server(port, "127.0.0.1", registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    stack.callback(stop)


class Laboratory(NamedTuple):
    """What the queries are asked of, and what had fired before the trouble began, and at the end."""

    prometheus: Prometheus
    fired_in_health: set[tuple[str, str]]
    fired: set[tuple[str, str]]


def certificates(folder: Path) -> bytes:
    """Put a pair of 90 days where `running` looks for one; its CA."""
    now = datetime.now(UTC)
    authority = certificate.make_ca("test", now)
    pair = certificate.make_leaf(authority, [running.NAME], now)
    (folder / "certificates").mkdir(parents=True)
    (folder / "certificates/tls.crt").write_bytes(pair.certificate)
    (folder / "certificates/tls.key").write_bytes(pair.key)
    (folder / "certificates-ca.crt").write_bytes(authority.certificate)
    return authority.certificate


# A webhook in a cluster whose ServiceAccount has its files elsewhere; admitting the Pod `fault` fails.
IN_A_CLUSTER = """
from pathlib import Path
from injector.admission import verdict
from injector.cluster import client
client.in_cluster.__defaults__ = (Path({folder!r}),)
inject = verdict.inject
def failing(pod, *others):
    if pod["metadata"]["name"] == "fault":
        raise RuntimeError("as the test wishes")
    return inject(pod, *others)
verdict.inject = failing
from injector.serving import defaulting
defaulting.POLL = 0.1
"""


def webhook(folder: Path, stack: contextlib.ExitStack, api: standin.Server | None = None) -> running.Replica:
    if api is None:
        return stack.enter_context(running.running(folder))
    prelude = IN_A_CLUSTER.format(folder=str(api.folder))
    (folder / "defaults.yaml").touch()
    served = running.running(
        folder,
        prelude=prelude,
        KUBERNETES_SERVICE_HOST=api.host,
        KUBERNETES_SERVICE_PORT=api.port,
        DEFAULTS_FILE=str(folder / "defaults.yaml"),
    )
    return stack.enter_context(served)


def kubernetes(folder: Path, ca: bytes, stack: contextlib.ExitStack) -> standin.Server:
    """An API that trusts our certificate and knows of one Pod, which writes the replica `taken`."""
    folder.mkdir()
    server = stack.enter_context(standin.serving(folder))
    hook = standin.webhook("pods.example.com", ca_bundle=base64.b64encode(ca).decode())
    server.api.put("mutatingwebhookconfigurations", "", standin.configuration(hook))
    standin.held(server.api, Place("", "litestream", "taken"))
    return server


def send(replica: running.Replica, body: bytes, method: str = "POST", pause: float = 0) -> int:
    """The status of the answer to a request; `pause` is how many seconds its body takes to come."""
    with replica.connect() as connection:
        head = f"{method} /mutate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        time.sleep(pause)
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split()[1])


def pod(name: str, **annotations: str) -> bytes:
    return json.dumps(reviews.review(reviews.pod(None, {"name": name}, **annotations), namespace="apps")).encode()


def admissions() -> Iterator[tuple[bytes, str, int]]:
    """Requests of every outcome but `error`: body, method, status."""
    plain = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": {"containers": []}}
    spec = {"replicas": 1, "strategy": {"type": "Recreate"}, "template": reviews.pod()}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    wrong = {**deployment, "spec": {**spec, "replicas": 2}}
    yield json.dumps(reviews.review(plain)).encode(), "POST", 200
    yield pod("web", replica_path="free"), "POST", 200
    yield pod("web", replica_path="taken"), "POST", 200
    yield pod("web", path="relative"), "POST", 200
    yield json.dumps(reviews.review(deployment)).encode(), "POST", 200
    yield json.dumps(reviews.review(wrong)).encode(), "POST", 200
    yield b"{}", "POST", 400


def await_answer(server: Prometheus, query: str) -> None:
    """Wait until a query has an answer."""
    deadline = time.monotonic() + MISSED_SCRAPES_SECONDS
    while not server.query(query):
        assert time.monotonic() < deadline, query
        time.sleep(0.1)


def trouble(replica: running.Replica, done: threading.Event) -> None:
    """Requests that the webhook can't answer well, over and over."""
    assert send(replica, pod("fault")) == 500
    while not done.is_set():
        assert send(replica, pod("web", replica_path="free")) == 200


def slow_requests(replica: running.Replica, done: threading.Event) -> None:
    while not done.is_set():
        assert send(replica, pod("plain"), pause=2.6) == 200


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("laboratory")
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(S3())
        dark, dark_03, far = (stack.enter_context(Proxy(s3.port)) for _ in range(3))

        ports = iter(free_ports(11))  # at once: a port that nobody listens on yet could be drawn twice

        def sidecar(name: str, endpoint: str = s3.endpoint, keys: Keys = s3.keys, release: str = "0.5.17") -> Sidecar:
            made = Sidecar(folder, name, next(ports), endpoint, keys, release)
            stack.callback(made.kill)
            return made

        healthy = [sidecar("healthy"), sidecar("healthy-0.3", release="0.3.13")]
        cut_off = [sidecar("silent", dark.endpoint), sidecar("silent-0.3", dark_03.endpoint, release="0.3.13")]
        wrong_keys = sidecar("wrong-keys", keys=Keys(s3.keys.access, "wrong"))
        slow, gone, restarting = sidecar("slow", far.endpoint), sidecar("gone"), sidecar("restarting")
        missing, late = sidecar("missing"), sidecar("late")
        busy = [*healthy, *cut_off, slow, wrong_keys, gone, restarting]
        for each in busy:
            each.create()
        writer = Writer([each.databases[0] for each in busy])
        writer.start()
        stack.callback(writer.stop)
        for each in [*busy, missing]:
            each.start()

        good, faulty = folder / "good", folder / "faulty"
        api = kubernetes(folder / "api", certificates(good), stack)
        faulty_api = kubernetes(folder / "faulty-api", certificates(faulty), stack)
        (folder / "expiring").mkdir()
        replicas = {
            ("litestream-hook", "good"): webhook(good, stack, api),
            ("faulty", "faulty-0"): webhook(faulty, stack, faulty_api),
            ("faulty", "faulty-1"): webhook(folder / "expiring", stack),
        }
        hooks = [
            Target(replica.metrics_port, "litestream-hook", namespace, name, "webhook")
            for (namespace, name), replica in replicas.items()
        ]
        hooks.append(Target(free_ports(1)[0], "litestream-hook", "away", "away-0", "webhook"))
        sidecars = [each.target for each in [*busy, missing, late]]
        state = Target(next(ports), "kube-state-metrics", "monitoring", "kube-state-metrics-0", "kube-state-metrics")
        kube_state_metrics(state.port, stack)
        server = stack.enter_context(Prometheus([*hooks, *sidecars, state], faster_rules()))

        late.create()  # nobody writes to it; Prometheus is there before its first upload
        late.start()
        for body, method, status in itertools.islice(itertools.cycle(admissions()), 0, 21):
            assert send(replicas["litestream-hook", "good"], body, method) == status
            time.sleep(HEALTHY_SECONDS / 21)
        fired_in_health = server.fired()

        dark.swallow = dark_03.swallow = True
        far.delay = 1.2
        (faulty / "defaults.yaml").write_text("default: {}")
        gone.kill()
        faulty_api.api.faults.append(standin.Fault(status=500, times=1_000_000, resource="pods"))
        done = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor())
        for ask in (trouble, slow_requests):
            # What goes wrong in it is raised here, and not in whichever test runs at that moment.
            stack.callback(pool.submit(ask, replicas["faulty", "faulty-0"], done).result)
        stack.callback(done.set)
        for restarts in range(3):
            # A life that Prometheus has not seen is no restart to it.
            starts = 'process_start_time_seconds{pod="restarting"}'
            await_answer(server, f"changes({starts}[1h]) >= {restarts}")
            restarting.kill()
            restarting.start()
        deadline = time.monotonic() + TROUBLE_SECONDS
        while not server.fired() >= EXPECTED and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(AFTERWARDS_SECONDS)
        yield Laboratory(server, fired_in_health, server.fired())


@available
@pytest.mark.slow
def test_health_sets_off_no_alert(laboratory: Laboratory) -> None:
    assert laboratory.fired_in_health <= FROM_THE_START


@available
@pytest.mark.slow
def test_every_alert_fires_in_the_trouble_that_it_is_for_and_in_no_other(laboratory: Laboratory) -> None:
    assert laboratory.fired == EXPECTED
    assert {name for name, _ in EXPECTED} == ALERTS.keys()


@available
@pytest.mark.slow
@pytest.mark.parametrize("name", ALERTS)
def test_alerts_ask_for_metrics_and_labels_that_are_there(laboratory: Laboratory, name: str) -> None:
    selectors = SELECTOR.findall(ALERTS[name]["expr"])
    assert selectors
    for selector in selectors:
        assert laboratory.prometheus.query(f"last_over_time({selector}[1h])"), selector


@available
@pytest.mark.slow
@pytest.mark.parametrize(("title", "target"), QUERIES, ids=[f"{t} {q['refId']}" for t, q in QUERIES])
def test_every_query_of_the_dashboard_has_an_answer(laboratory: Laboratory, title: str, target: dict[str, Any]) -> None:
    query = faster(filled(target["expr"]))
    answer = laboratory.prometheus.query(query)
    assert answer, f"{title}: {query}"
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert all(label in sample.labels for sample in answer)
    selectors = SELECTOR.findall(query)
    assert selectors
    for selector in selectors:
        assert laboratory.prometheus.query(f"last_over_time({selector}[1h])"), selector


@available
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {"datasource"}))
def test_every_variable_of_the_dashboard_has_values(laboratory: Laboratory, name: str) -> None:
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", VARIABLES[name]["query"]["query"])
    assert found
    samples = laboratory.prometheus.query(f"last_over_time({faster(filled(found[1]))}[1h])")
    assert samples
    assert all(sample.labels[found[2]] for sample in samples)


def stats(server: Prometheus) -> dict[str, float]:
    """What the panels of a single number show, by their title."""
    return {
        panel["title"]: sample.value
        for panel in PANELS
        if panel["type"] == "stat"
        for sample in server.query(faster(filled(panel["targets"][0]["expr"])))[:1]
    }


@available
@pytest.mark.slow
def test_the_dashboard_counts_what_is_wrong(laboratory: Laboratory) -> None:
    counts = {"Pods that upload nothing": 2, "Databases never synced": 4, "Litestream down": 1, "Ready replicas": 3}
    counts["Pods without Litestream"] = 1
    deadline = time.monotonic() + MISSED_SCRAPES_SECONDS
    while not counts.items() <= (shown := stats(laboratory.prometheus)).items() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert shown | counts == shown
    assert 0 < shown["Certificate ends in"] < 24 * 3600


WAL = 'litestream_total_wal_bytes{namespace="a", pod="p", db="d"}'
PUT = 'litestream_replica_operation_total{namespace="a", pod="p", operation="PUT"}'
DEFAULTS = 'litestream_hook_defaults_last_reload_successful{namespace="a", pod="p"}'
READY = 'litestream_hook_ready{namespace="a", pod="p"}'
EXPIRY = "litestream_hook_certificate_expiry_timestamp_seconds"
ERRORS = 'litestream_hook_requests_total{namespace="a", pod="p", kind="Pod", outcome="error"}'
TXID = 'litestream_txid{namespace="a", pod="p", db="d"}'
UP = 'up{namespace="a", pod="p", container="litestream-hook-replicate"}'
SYNC_ERRORS = 'litestream_sync_error_count{namespace="a", pod="p", db="d"}'
SIZE = 'litestream_db_size{namespace="a", pod="p", db="d"}'
STARTED = 'process_start_time_seconds{namespace="a", pod="p", container="litestream-hook-replicate"}'
LOOKUPS = 'litestream_hook_guard_lookups_total{namespace="a", pod="p", result="unknown"}'
ASKING = f'kube_pod_annotations{{namespace="a", pod="p", {INJECT}="true"}}'
NATIVE = 'kube_pod_init_container_info{namespace="a", pod="p", container="litestream-hook-replicate"}'
SUCCEEDED = 'kube_pod_status_phase{namespace="a", pod="p", phase="Succeeded"}'
NEVER = {f"{minute}m": False for minute in range(1, 90)}


def answered(within: dict[str, str]) -> dict[str, str]:
    """The webhook's histogram: how many answers took no longer than so many seconds."""
    name = "litestream_hook_request_duration_seconds_bucket"
    return {f'{name}{{namespace="a", pod="p", le="{seconds}"}}': values for seconds, values in within.items()}


# Series (one value a minute), and when the alert is firing or not.
IN_TIME: dict[str, tuple[str, dict[str, str], dict[str, bool]]] = {
    "a quarter of an hour without an upload": (
        "LitestreamReplicationStalled",
        {WAL: "0+1000x60", PUT: "1+60x20 1201x40"},
        {"20m": False, "34m": False, "36m": True, "60m": True},
    ),
    "no upload from the start": (
        "LitestreamReplicationStalled",
        {WAL: "0+1000x60"},
        {"5m": False, "8m": True, "60m": True},
    ),
    "an outage of five minutes": (
        "LitestreamReplicationStalled",
        {WAL: "0+1000x60", PUT: "1+60x20 1201x5 1500+60x35"},
        NEVER,
    ),
    "an application that writes nothing": (
        "LitestreamReplicationStalled",
        {WAL: "1000x60", PUT: "2x60"},
        NEVER,
    ),
    "a first upload that Prometheus sees as the first value": (
        "LitestreamReplicationStalled",
        {WAL: "0 1000x60", PUT: "_ 2x60"},
        NEVER,
    ),
    "half of the transactions are uploaded": (
        "LitestreamReplicationBehind",
        {TXID: "1+60x60", PUT: "1+60x20 1231+30x39"},
        {"24m": False, "34m": False, "36m": True, "60m": True},
    ),
    "every transaction is uploaded": ("LitestreamReplicationBehind", {TXID: "1+60x90", PUT: "1+60x90"}, NEVER),
    "uploads that make up for five minutes": (
        "LitestreamReplicationBehind",
        {TXID: "1+60x90", PUT: "1+60x20 1201x5 1561+60x63"},
        NEVER,
    ),
    "a Litestream that starts every eight minutes, and goes on counting": (
        "LitestreamReplicationBehind",
        {TXID: "0 50000+60x6 " * 12, PUT: "1+60x7 " * 12},
        NEVER,
    ),
    "a sync error every ten minutes": (
        "LitestreamSyncErrors",
        {SYNC_ERRORS: "0x9 1x9 2x9 3x9 4x60"},
        {"9m": False, "24m": False, "26m": True, "50m": True, "56m": False},
    ),
    # Litestream tries again, and has succeeded if there is no other.
    "one sync error": ("LitestreamSyncErrors", {SYNC_ERRORS: "0x9 1x90"}, NEVER),
    "many sync errors in a minute": ("LitestreamSyncErrors", {SYNC_ERRORS: "0x9 60x90"}, NEVER),
    "a database that is not there": (
        "LitestreamDatabaseNeverSynced",
        {SIZE: "0x60"},
        {"14m": False, "16m": True, "60m": True},
    ),
    "a database that comes after ten minutes": ("LitestreamDatabaseNeverSynced", {SIZE: "0x10 4096x90"}, NEVER),
    "a Litestream that does not answer": ("LitestreamDown", {UP: "1x9 0x60"}, {"24m": False, "26m": True, "60m": True}),
    "a Litestream that does not answer for ten minutes": ("LitestreamDown", {UP: "1x9 0x10 1x90"}, NEVER),
    "another container that does not answer": ("LitestreamDown", {UP.replace("replicate", "x"): "0x90"}, NEVER),
    "three restarts in half an hour": (
        "LitestreamRestarts",
        {STARTED: "100x9 700x9 1300x9 1900x90"},
        {"29m": False, "31m": True, "68m": True, "72m": False},
    ),
    "two restarts": ("LitestreamRestarts", {STARTED: "100x9 700x9 1300x90"}, NEVER),
    "a Pod that asks and has none": (
        "LitestreamMissing",
        {ASKING: "_x9 1x60", SUCCEEDED: "_x9 0x60"},
        {"9m": False, "13m": False, "16m": True, "60m": True},
    ),
    "a Pod that asks and is injected": ("LitestreamMissing", {ASKING: "1x90", NATIVE: "1x90"}, NEVER),
    "a Pod that asked and is done": ("LitestreamMissing", {ASKING: "1x90", SUCCEEDED: "1x90"}, NEVER),
    "two slow answers in a hundred": (
        "LitestreamHookSlow",
        answered({"1.0": "0+98x60", "5.0": "0+100x60", "+Inf": "0+100x60"}),
        {"10m": False, "12m": True, "60m": True},
    ),
    "one slow answer in two hundred": (
        "LitestreamHookSlow",
        answered({"1.0": "0+199x90", "5.0": "0+200x90", "+Inf": "0+200x90"}),
        NEVER,
    ),
    "slow answers for four minutes": (
        "LitestreamHookSlow",
        answered({"1.0": "0+100x20 2000x4 2100+100x65", "5.0": "0+100x90", "+Inf": "0+100x90"}),
        NEVER,
    ),
    "five questions of the guard without an answer": (
        "LitestreamHookGuardErrors",
        {LOOKUPS: "0x9 5x60"},
        {"9m": False, "10m": True, "30m": False},
    ),
    "two questions of the guard without an answer": ("LitestreamHookGuardErrors", {LOOKUPS: "0x9 2x90"}, NEVER),
    "a file of defaults that is broken": (
        "LitestreamHookDefaultsBroken",
        {DEFAULTS: "1x9 0x60"},
        {"13m": False, "16m": True, "60m": True},
    ),
    "a file of defaults that is mended after four minutes": (
        "LitestreamHookDefaultsBroken",
        {DEFAULTS: "1x9 0x3 1x90"},
        NEVER,
    ),
    "no webhook at all": ("LitestreamHookDown", {}, {"4m": False, "6m": True}),
    "a webhook that is never ready": ("LitestreamHookDown", {READY: "0x20"}, {"4m": False, "6m": True}),
    "a webhook that is ready": ("LitestreamHookDown", {READY: "1x20"}, {"4m": False, "19m": False}),
    "one fault of the webhook": ("LitestreamHookErrors", {ERRORS: "0x5 1x60"}, {"5m": False, "7m": True, "30m": False}),
    "a certificate that ends": (
        "LitestreamHookCertificateExpires",
        {f'{EXPIRY}{{namespace="a", pod="p"}}': f"{7 * 24 * 3600 + 20 * 60}x90"},
        {"15m": False, "45m": False, "55m": True},
    ),
    "a certificate that one replica has not picked up": (
        "LitestreamHookReplicasDisagree",
        {f'{EXPIRY}{{namespace="a", pod="p"}}': "1000x90", f'{EXPIRY}{{namespace="a", pod="q"}}': "1000x10 2000x90"},
        {"20m": False, "40m": False, "42m": True},
    ),
}


@available
@pytest.mark.slow
@pytest.mark.parametrize("case", IN_TIME)
def test_alerts_wait_as_long_as_they_should(case: str, tmp_path: Path) -> None:
    alert, series, moments = IN_TIME[case]
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    answers = {moment: 1 if fires else None for moment, fires in moments.items()}
    ask_in_time(tmp_path, "1m", series, firing, answers)


# Series (one value in 30 seconds), and the whole minutes that the panel shows.
SINCE_THE_LAST_UPLOAD: dict[str, tuple[dict[str, str], dict[str, int | None]]] = {
    "an upload in every scrape": ({UP: "1x40", PUT: "1+30x40"}, {f"{minute}m": 0 for minute in range(1, 20)}),
    "uploads that end after twenty minutes": (
        {UP: "1x300", PUT: "1+30x40 1201x260"},
        {"20m": 0, "21m": 1, "22m": 2, "50m": 30, "79m": 59, "85m": 60, "150m": 60},
    ),
    "one upload in ten minutes": ({UP: "1x80", PUT: "1x19 2x19 3x40"}, {"19m": 9, "20m": 0, "25m": 5}),
    "a start without S3": ({UP: "_x20 1x300"}, {"5m": None, "20m": 10, "65m": 55, "75m": 60, "150m": 60}),
    "a Litestream that crashes": (
        {UP: "1x40 0x260", PUT: "1+30x40 stale"},
        {"20m": 0, "30m": 10, "79m": 59, "85m": 60, "149m": 60},
    ),
    "a failed scrape": (
        {UP: "1x20 0 1x60", PUT: "1x20 stale 1x60"},
        {f"{minute}m": minute for minute in range(1, 40)},
    ),
    "a Pod that is gone": ({UP: "1x40 stale", PUT: "1+30x40 stale"}, {"20m": 0, "21m": None, "40m": None}),
}


@available
@pytest.mark.slow
@pytest.mark.parametrize("case", SINCE_THE_LAST_UPLOAD)
def test_the_dashboard_shows_how_long_ago_the_last_upload_was(case: str, tmp_path: Path) -> None:
    series, minutes = SINCE_THE_LAST_UPLOAD[case]
    (panel,) = (panel for panel in PANELS if panel["title"] == "Time since the last upload")
    shown = f"sum(round(({filled(panel['targets'][0]['expr'])}) / 60))"
    ask_in_time(tmp_path, "30s", series, shown, minutes)


def ask_in_time(
    folder: Path, interval: str, series: dict[str, str], expression: str, answers: Mapping[str, int | None]
) -> None:
    """Let promtool compare what the expression says at each moment; None: nothing."""
    (folder / "rules.yml").write_text(yaml.safe_dump(RULES))
    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": moment,
                "exp_samples": [] if answer is None else [{"labels": "{}", "value": answer}],
            }
            for moment, answer in answers.items()
        ],
    }
    written = {"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": [test]}
    (folder / "test.yml").write_text(yaml.safe_dump(written))
    prometheus.promtool("test", "rules", folder / "test.yml")


@available
@pytest.mark.slow
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    assert f"{len(ALERTS)} rules found" in prometheus.promtool("check", "rules", "--lint-fatal", tmp_path / "rules.yml")


def test_every_panel_explains_itself_and_asks_the_chosen_data_source() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert defaults["unit"]
        assert defaults["thresholds"]["steps"]
        for source in [panel, *panel["targets"]]:
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert VARIABLES["datasource"]["query"] == "prometheus"


def test_rates_know_how_often_litestream_and_the_webhook_are_scraped() -> None:
    """Their "Min step": $__rate_interval is four of them, or four times the data source's own 15 seconds."""
    monitors = [
        yaml.safe_load((FOLDER / name).read_text())["spec"] for name in ("podmonitor.yaml", "servicemonitor.yaml")
    ]
    endpoints = [*monitors[0]["podMetricsEndpoints"], *monitors[1]["endpoints"]]
    (interval,) = {endpoint["interval"] for endpoint in endpoints}
    rates = [(title, target) for title, target in QUERIES if "$__rate_interval" in target["expr"]]
    assert rates
    for title, target in rates:
        assert target.get("interval") == interval, title


POLICY = ROOT / "k8s/components/metrics-port/networkpolicy.yaml"


def test_the_metrics_port_can_be_a_default_for_all_pods() -> None:
    """So that monitoring is one setting; the PodMonitor asks for the port by its name."""
    (written,) = re.findall(r"^defaults: \{metrics-port: .*\}$", OPERATING, re.MULTILINE)
    defaults = operator_file.read(written, reviews.DEFAULTS).of("default")
    found = reviews.injected(reviews.pod(), defaults=defaults)
    (sidecar,) = (each for each in found["spec"]["initContainers"] if each["name"] == containers.REPLICATE)
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    (port,) = sidecar["ports"]
    assert port["name"] == endpoint["port"]
    (alone,) = yaml.safe_load(POLICY.read_text())["spec"]["ingress"][1]["ports"]
    assert port["containerPort"] == alone["port"]
    own = reviews.injected(reviews.pod(metrics_port="9123"), defaults=defaults)
    assert "9123" in json.dumps(own["spec"])


def test_a_pod_that_has_the_default_port_itself_is_told_to_write_another() -> None:
    defaults = operator_file.read("defaults: {metrics-port: 9090}", reviews.DEFAULTS).of("default")
    taken = reviews.pod({"containers": [{"name": "app", "image": "a:1", "ports": [{"containerPort": 9090}]}]})
    told = reviews.denied(taken, defaults=defaults)["metrics-port"]
    assert "is taken by container app: write another" in told
    assert "the operator's defaults" in told


def test_the_policy_closes_the_metrics_port_to_all_but_prometheus_and_no_other_port() -> None:
    policy = yaml.safe_load(POLICY.read_text())
    assert [problem for release in schemas.RELEASES for problem in schemas.problems(policy, release)] == []
    spec = policy["spec"]
    everybody, prometheus_alone = spec["ingress"]
    (port,) = prometheus_alone["ports"]
    ranges = [(each["protocol"], range(each["port"], each["endPort"] + 1)) for each in everybody["ports"]]
    tcp = {number for protocol, numbers in ranges if protocol == "TCP" for number in numbers}
    assert tcp == set(range(1, 65536)) - {port["port"]}
    assert all(len(numbers) == 65535 for protocol, numbers in ranges if protocol != "TCP")
    webhook = yaml.safe_load((FOLDER / "networkpolicy.yaml").read_text())["spec"]
    assert prometheus_alone["from"] == webhook["ingress"][0]["from"]
    labels = reviews.injected(reviews.pod())["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def test_the_docs_say_what_to_do_about_each_alert() -> None:
    table = OPERATING.split("### Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(ALERTS)


def test_every_alert_is_seen_to_wait_and_to_fire() -> None:
    assert {alert for alert, _, moments in IN_TIME.values() if set(moments.values()) == {False, True}} == ALERTS.keys()


def test_every_alert_has_a_severity_a_summary_and_a_description() -> None:
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_whoever_finds_litestream_down_is_told_of_every_container_that_may_block_its_start() -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "data", "mountPath": "/mnt"}]
    spec = {"volumes": volumes, "containers": [{"name": "app", "image": "example.com/app:1", "volumeMounts": mounts}]}
    injected = reviews.injected(reviews.pod({"securityContext": {"runAsUser": 1000}, **spec}))
    names = [each["name"] for each in injected["spec"]["initContainers"]]
    blocking = names[: names.index(containers.REPLICATE)]
    assert containers.INIT in blocking
    (row,) = (row for row in OPERATING.splitlines() if row.startswith("| `LitestreamDown`"))
    for name in blocking:
        assert name in ALERTS["LitestreamDown"]["annotations"]["description"]
        assert name in row
