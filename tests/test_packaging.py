"""The package that pip, pipx and uvx install, and the one version that everything has."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from injector import __version__

ROOT = Path(__file__).parents[1]

IMAGE = "ghcr.io/kaidotio/litestream-hook"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` builds."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_scripts_only(wheel: Path) -> None:
    """Not the tests, and not main.py: a module of that name belongs to whoever installs it."""
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "injector").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = f"litestream_hook-{__version__}.dist-info/"
    assert {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith(about)} == expected


def test_the_wheel_has_the_version_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        said = email.message_from_bytes(files.read(f"litestream_hook-{__version__}.dist-info/METADATA"))
    assert (said["Name"], said["Version"]) == ("litestream-hook", __version__)


@pytest.mark.slow
def test_the_installed_command_does_in_any_folder_what_the_checkout_does(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        target,
        wheel,
    ]
    subprocess.run(pip, check=True)
    check = ["check", *map(str, sorted((ROOT / "examples").glob("*.yaml")))]
    here = subprocess.run([sys.executable, "-m", "injector", *check], cwd=ROOT, capture_output=True, check=False)

    def installed(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command: list[str | Path] = [target / "bin/litestream-hook", *arguments]
        return subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(target)}, capture_output=True, check=False)

    there = installed(*check)
    assert (there.returncode, there.stdout, there.stderr) == (here.returncode, here.stdout, here.stderr)
    assert installed("--version").stdout.decode() == f"litestream-hook {__version__}\n"
    assert installed("--help").stdout.startswith(b"usage: litestream-hook ")
    assert (target / "bin/kubectl-litestream").exists()


def test_the_image_and_the_manifests_have_the_version_of_the_package() -> None:
    label = re.findall(r"^ARG VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    deployment = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text())
    images = [container["image"] for container in deployment["spec"]["template"]["spec"]["containers"]]
    assert label == [__version__]
    assert images == [f"{IMAGE}:{__version__}"]


def test_no_other_place_names_a_version_of_the_image() -> None:
    """CI and every overlay take it from where it stands."""
    files = [path for folder in ("k8s", ".github") for path in (ROOT / folder).rglob("*.y*ml")]
    named = [path.relative_to(ROOT).as_posix() for path in files if re.search(rf"{IMAGE}:\d|newTag:", path.read_text())]
    assert named == ["k8s/base/deployment.yaml"]
