"""The development loop: skaffold.yaml fits the image and the manifests, and a saved file restarts the webhook."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

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
    assert copied == {"main.py": "/app/", "injector": "/app/injector"}
    synced = {each["src"]: each["dest"] for each in ARTIFACT["sync"]["manual"]}
    assert synced == {"main.py": "/app", "injector/**/*.py": "/app"}


def development() -> str:
    return stage(ARTIFACT["docker"]["target"])


@pytest.mark.slow
def test_a_saved_file_restarts_the_webhook_and_a_typo_waits_for_the_next_save(tmp_path: Path) -> None:
    """The development image's own command, in a copy of the files that it has."""
    app, log = tmp_path / "app", tmp_path / "log"
    shutil.copytree(ROOT / "injector", app / "injector", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", app)
    words = re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", development(), re.MULTILINE)
    command = [word for each in words for word in json.loads(each)]
    environment = {
        **{name: value for name, value in os.environ.items() if name == "PATH"},
        "PYTHONPATH": str(app),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LOG_FORMAT": "json",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "METRICS_BIND_ADDRESS": "127.0.0.1:0",
        "HEALTH_PROBE_BIND_ADDRESS": "127.0.0.1:0",
        "TMPDIR": str(tmp_path),
        "CERT_DIR": str(tmp_path / "none"),
    }
    command = [sys.executable if word == "python" else word for word in command]
    with log.open("wb") as written:
        process = subprocess.Popen(command, cwd=app, env=environment, stdout=written, stderr=subprocess.STDOUT)
    try:
        until(lambda: starts(log) == 1, log)
        main = (app / "main.py").read_text()
        (app / "main.py").write_text(main + "\n# saved\n")
        until(lambda: starts(log) == 2, log)
        (app / "injector/serving/server.py").write_text(
            (ROOT / "injector/serving/server.py").read_text() + "\na typo\n"
        )
        until(lambda: "SyntaxError" in log.read_text(), log)
        time.sleep(1)  # uvicorn notes the files' times anew a moment after it has restarted
        shutil.copy(ROOT / "injector/serving/server.py", app / "injector/serving/server.py")
        until(lambda: starts(log) == 3, log)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert log.read_text().count('"stopped"') == 3, "one was left running"
    finally:
        process.kill()
        process.wait()


def starts(log: Path) -> int:
    """How often the webhook has come up."""
    return log.read_text().count('"serving"')


def until(happened: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
