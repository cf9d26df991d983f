"""The rooms: an import that goes up, or a module that is in no room, fails `make lint`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "injector", tmp_path / "injector", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow  # each starts the linter
@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("values.py", "import httptools"),
        ("pod/scripts/__init__.py", "import os"),
        ("pod/scripts/__init__.py", "import time"),
        ("cluster/guard.py", "from injector.admission import webhook"),
        ("pod/inject.py", "from injector.admission import verdict"),
        ("tls/source.py", "from injector.pod import inject"),
        ("cli.py", "from injector.tls import rotation"),
        ("command/files.py", "from injector.serving import log"),
        ("command/objects.py", "from injector.command import check"),
        ("serving/connection.py", "from injector.serving import listener"),
        ("nowhere.py", ""),
        ("pod/nowhere.py", ""),
    ],
)
def test_what_a_module_may_not_know_fails_the_contracts(checkout: Path, module: str, line: str) -> None:
    file = checkout / "injector" / module
    file.write_text((file.read_text() if file.exists() else "") + f"\n{line}\n")
    found = lint(checkout)
    assert found.returncode == 1
    assert "BROKEN" in found.stdout + found.stderr or "nowhere" in found.stdout + found.stderr


def test_the_contracts_hold_as_the_code_stands(checkout: Path) -> None:
    found = lint(checkout)
    assert found.returncode == 0, found.stdout + found.stderr
