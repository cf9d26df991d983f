"""The development loop: skaffold.yaml fits the image and the manifests, and a saved file restarts the webhook."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from injector import __version__
from tests import demo, reviews
from tests.podrunner.s3 import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]

ROOT = Path(__file__).parents[1]
SKAFFOLD: Object = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
(ARTIFACT,) = SKAFFOLD["build"]["artifacts"]


def stage(name: str) -> str:
    """The lines of one stage of the Dockerfile."""
    return next(part for part in re.split(r"(?=^FROM )", DOCKERFILE, flags=re.MULTILINE) if f" AS {name}\n" in part)


def test_skaffold_builds_the_image_that_it_deploys() -> None:
    (overlay,) = SKAFFOLD["manifests"]["kustomize"]["paths"]
    kubectl = Path(sys.executable).with_name("kubectl")
    rendered = subprocess.run([kubectl, "kustomize", ROOT / overlay], capture_output=True, check=True, text=True).stdout
    (deployment,) = (each for each in yaml.safe_load_all(rendered) if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].partition(":")[0] == ARTIFACT["image"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert {each["port"] for each in SKAFFOLD["portForward"]} == ports
    for each in SKAFFOLD["portForward"]:
        assert each["resourceName"] == deployment["metadata"]["name"]
        assert each["namespace"] == deployment["metadata"]["namespace"]


def test_changed_files_are_copied_to_where_the_image_has_them() -> None:
    copied = {
        source: target
        for _, source, target in re.findall(r"^COPY (--chown=\S+ )?(\S+) (\S+)$", development(), re.MULTILINE)
    }
    assert copied == {"requirements-dev.txt": "/build/", "injector": "/app/injector"}
    synced = {each["src"]: each["dest"] for each in ARTIFACT["sync"]["manual"]}
    assert synced == {"injector/**/*.py": "/app", "injector/**/*.sh": "/app"}


def development() -> str:
    return stage(ARTIFACT["docker"]["target"])


class Reloading:
    """The webhook in a copy of its files, started by the development image's own command."""

    def __init__(self, folder: Path) -> None:
        self.package, self._log = folder / "injector", folder / "log"
        shutil.copytree(ROOT / "injector", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        words = re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", development(), re.MULTILINE)
        command = [word for each in words for word in json.loads(each)]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LOG_FORMAT": "json",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "METRICS_BIND_ADDRESS": "127.0.0.1:0",
            "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:0",
            "TMPDIR": str(folder),
            "CERT_DIR": str(folder / "none"),
        }
        with self._log.open("wb") as written:
            self._process = subprocess.Popen(
                [sys.executable if word == "python" else word for word in command],
                cwd=folder,
                env=environment,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def save(self, version: str) -> None:
        """Change the version that the webhook says it is; it tells as well when it has read that."""
        text = (ROOT / "injector/__init__.py").read_text().replace(__version__, version)
        (self.package / "__init__.py").write_text(f"{text}\nprint('read {version}', flush=True)\n")

    def count(self, text: str) -> int:
        """How often it has written this."""
        return self._log.read_text().count(text)

    def until(self, text: str, times: int = 1) -> None:
        """Wait until it has written this so often."""
        deadline = time.monotonic() + 60
        while self.count(text) < times:
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """End the reloader as a kubelet does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def kill(self) -> None:
        """End the reloader and what it has started, however they are."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def reloading(tmp_path: Path) -> Iterator[Reloading]:
    webhook = Reloading(tmp_path)
    try:
        webhook.until('"serving"')
        yield webhook
    finally:
        webhook.kill()


@pytest.mark.slow
def test_every_save_takes_effect_also_one_during_a_restart(reloading: Reloading) -> None:
    for number in range(1, 4):
        reloading.save(f"early-{number}")
        reloading.until(f"read early-{number}")
        reloading.save(f"late-{number}")
        reloading.until(f'"version": "late-{number}"')


@pytest.mark.slow
def test_the_end_of_the_reloader_ends_the_webhook(reloading: Reloading) -> None:
    reloading.stop()
    assert reloading.count('"stopped"') == 1


@pytest.mark.slow
def test_a_typo_waits_for_the_next_save(reloading: Reloading) -> None:
    reloading.save('"')
    reloading.until("SyntaxError")
    reloading.save("mended")
    reloading.until('"version": "mended"')


@pytest.mark.slow
def test_a_saved_script_takes_effect(reloading: Reloading) -> None:
    (reloading.package / "pod/saved.sh").write_text("true\n")
    reloading.until('"serving"', 2)


@pytest.mark.slow
def test_without_watchfiles_reloading_is_refused_in_one_sentence() -> None:
    """As in the production image: uvicorn's other reloader loses what is saved while it restarts."""
    program = "import sys; sys.modules['watchfiles'] = None; from injector import cli; sys.exit(cli.main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--reload"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install watchfiles" in done.stderr


def recipe(target: str) -> list[str]:
    """The command of a make target, with make's variables as they are by default."""
    text = (ROOT / "Makefile").read_text().replace("\\\n", "").replace("$(BIN)", str(Path(sys.executable).parent))
    (line,) = re.findall(rf"^{target}:.*\n(?:\t@echo.*\n)*\t@(.*)", text, re.MULTILINE)
    return ["sh", "-c", line.replace("$(PORT)", "$PORT")]


@pytest.fixture(params=["functions-framework --target mutate", "make run"])
def development_server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A server of a developer's machine on a terminal of its own: where it is, and that terminal."""
    scripts = Path(sys.executable).parent
    (port,) = free_ports(1)
    command = (
        recipe("run") if request.param == "make run" else [str(scripts / "functions-framework"), "--target", "mutate"]
    )
    environment = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port), "NO_COLOR": "1"}
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, os.read(ours, 65536)
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", ours
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_each_admission_is_one_line_on_the_terminal_and_a_bad_request_says_why(
    development_server: tuple[str, int],
) -> None:
    """As the README promises of the log."""
    url, terminal = development_server
    demo.send(url, reviews.review(reviews.pod()))
    demo.send(url, reviews.review(reviews.pod(bucket="My")))
    assert demo.send(url, {"kind": "Pod"}) is None
    seen = ""
    while seen.count("\n") < 3:
        assert select.select([terminal], [], [], 60)[0], seen
        seen += os.read(terminal, 65536).decode()
    injected, denied, bad = seen.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    admission uid=\S+ .*name=web .*outcome=injected .*", injected)
    assert "outcome=denied reason=annotations" in denied
    assert "WARNING not an admission" in bad
    assert "why=not an AdmissionReview of admission.k8s.io/v1" in bad


@pytest.mark.slow
def test_the_line_that_make_run_prints_shows_an_injection_of_any_example(development_server: tuple[str, int]) -> None:
    """`make run EXAMPLE=examples/02-statefulset.yaml`: pasted as it is printed."""
    (line,) = re.findall(r'^\t@echo "  (.*curl.*)"$', (ROOT / "Makefile").read_text(), re.MULTILINE)
    line = line.replace("$(BIN)", str(Path(sys.executable).parent))
    line = line.replace("http://127.0.0.1:$(PORT)", development_server[0])
    for name in ("01-pod", "02-statefulset", "03-deployment"):
        pasted = line.replace("$(EXAMPLE)", f"examples/{name}.yaml")
        done = subprocess.run(["sh", "-c", pasted], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        pods = [each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "Pod"]
        assert ["litestream-hook-replicate" in str(pod["spec"]["initContainers"]) for pod in pods] == [True]
