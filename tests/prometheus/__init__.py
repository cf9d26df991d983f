"""A real Prometheus for one test: it scrapes ports of this machine and evaluates rules; and its promtool."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import yaml

from tests.podrunner.images import CACHE
from tests.podrunner.s3 import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

BINARIES = CACHE / "prometheus/usr/bin"
INTERVAL = "500ms"
START_SECONDS = 60


class Target(NamedTuple):
    """A port of 127.0.0.1, and the labels that the operator would give what is scraped there."""

    port: int
    job: str
    namespace: str
    pod: str
    container: str


class Sample(NamedTuple):
    """One element of a query's result."""

    labels: dict[str, str]
    value: float


def missing() -> str | None:
    """Why there is no Prometheus on this machine, or None if there is one."""
    absent = [name for name in ("prometheus", "promtool") if _binary(name) is None]
    return f"{' and '.join(absent)} not found: run tests/prometheus/install" if absent else None


def promtool(*arguments: str | Path) -> str:
    """What promtool says; AssertionError if it finds something wrong."""
    done = subprocess.run(
        [_binary("promtool") or "promtool", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Prometheus:
    """Scrapes `targets` and evaluates `rules` (a PrometheusRule's spec) twice a second until the `with` block ends."""

    def __init__(self, targets: Iterable[Target], rules: dict[str, Any]) -> None:
        self._targets, self._rules = list(targets), rules

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="prometheus-")
        folder = Path(self._directory.name)
        (folder / "rules.yml").write_text("groups: []")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(self._configuration()))
        (self._port,) = free_ports(1)
        with (folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [
                    _binary("prometheus") or "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ],
                cwd=folder,
                env={"GOMAXPROCS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._scrapes():
            if time.monotonic() > deadline or self._server.poll() is not None:
                said = (folder / "log").read_text()
                self.__exit__(None, None, None)
                raise AssertionError(f"Prometheus does not start:\n{said}")
            time.sleep(0.1)
        # It scrapes five seconds after its start; rules that it has by then would find nothing at all.
        (folder / "rules.yml").write_text(yaml.safe_dump(self._rules))
        self._server.send_signal(signal.SIGHUP)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.wait()
        self._directory.cleanup()

    def query(self, expression: str) -> list[Sample]:
        """The result of an instant query."""
        data = urllib.parse.urlencode({"query": expression}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/query", data, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [Sample(each["metric"], float(each["value"][1])) for each in result]

    def fired(self) -> set[tuple[str, str]]:
        """Every alert that is firing or has fired, each with whom it is about: the Pod, else the namespace."""
        return {
            (each.labels["alertname"], each.labels.get("pod") or each.labels.get("namespace", ""))
            for each in self.query('last_over_time(ALERTS{alertstate="firing"}[1h])')
        }

    def _configuration(self) -> dict[str, Any]:
        jobs: dict[str, list[dict[str, Any]]] = {}
        for target in self._targets:
            labels = {"namespace": target.namespace, "pod": target.pod, "container": target.container}
            jobs.setdefault(target.job, []).append({"targets": [f"127.0.0.1:{target.port}"], "labels": labels})
        return {
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                # What kube-state-metrics says of Pods has their labels, which count before its own.
                {"job_name": job, "static_configs": configs, "honor_labels": job == "kube-state-metrics"}
                for job, configs in jobs.items()
            ],
        }

    def _scrapes(self) -> bool:
        try:
            return len(self.query("up")) == len(self._targets)
        except OSError:
            return False


def _binary(name: str) -> str | None:
    return shutil.which(name, path=str(BINARIES)) or shutil.which(name)
