"""What a release ships beside the image: manifests, the chart with the image's digest, and the changelog's section.

`python -m tests.dist IMAGE`, with IMAGE as NAME:TAG or NAME:TAG@sha256:..., writes them to dist/.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from helm_python import chart as helm

from injector import __version__

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts/litestream-hook"
MANIFESTS = {"install.yaml": "self-signed", "install-cert-manager.yaml": "cert-manager"}


def notes(changelog: str, version: str) -> str:
    """The section of a version in a changelog; ValueError if it has none."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no section [{version}]: rename [Unreleased] to it")
    return found[1].strip() + "\n"


def manifests(overlay: str, image: str) -> str:
    """An overlay of k8s/ as one file, with this image."""
    environment = {**os.environ, "KUBECTL": str(Path(sys.executable).with_name("kubectl"))}
    command = [str(ROOT / "k8s/render"), overlay, image]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def package(image: str, folder: Path) -> Path:
    """The chart as an archive, its default image pinned to this one's digest if it has one."""
    _, _, digest = image.partition("@")
    with tempfile.TemporaryDirectory() as temporary:
        copied = Path(temporary, CHART.name)
        shutil.copytree(CHART, copied)  # with what the links in it lead to
        values = copied / "values.yaml"
        values.write_text(values.read_text().replace('  digest: ""\n', f'  digest: "{digest}"\n', 1))
        with helm.Chart.load(copied) as chart:
            return Path(chart.save(folder))


def main() -> None:
    """Write everything, or say what is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.dist", description=__doc__)
    parser.add_argument("image", help="NAME:TAG, or NAME:TAG@sha256:... as a release has")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(exist_ok=True)
    for name, overlay in MANIFESTS.items():
        (folder / name).write_text(manifests(overlay, arguments.image))
    package(arguments.image, folder)
    try:
        (folder / "notes.md").write_text(notes((ROOT / "CHANGELOG.md").read_text(), __version__))
    except ValueError as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
