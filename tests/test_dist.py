"""What a release ships is made here as the release makes it; pushing and signing is left to GitHub."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from helm_python import chart as helm

from injector import __version__
from tests import dist
from tests.dist import ROOT
from tests.test_manifests import kustomize

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = f"ghcr.io/kaidotio/litestream-hook:{__version__}@sha256:{'0123456789abcdef' * 4}"
WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize("overlay", dist.MANIFESTS.values())
def test_a_release_installs_what_the_overlay_installs_with_the_image_by_digest(overlay: str) -> None:
    made: list[dict[str, Any]] = list(yaml.safe_load_all(dist.manifests(overlay, IMAGE)))
    wanted = kustomize(ROOT / "k8s/overlays" / overlay)
    (deployment,) = (each for each in wanted if each["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    assert made == wanted


def test_a_packaged_chart_pins_the_image_by_digest(tmp_path: Path) -> None:
    archive = dist.package(IMAGE, tmp_path)
    assert archive.name == f"litestream-hook-{__version__}.tgz"
    with helm.Chart.load(archive) as chart:
        files = chart.render({}, name="litestream-hook", namespace="litestream-hook")
    assert f"image: {IMAGE}\n" in files["litestream-hook/templates/deployment.yaml"]


def test_the_notes_are_the_changelogs_section() -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-11-29\n\n### Added\n\n- A.\n\n## [1.1.0]\n\n- B.\n"
    assert dist.notes(text, "1.2.0") == "### Added\n\n- A.\n"
    assert dist.notes(text, "1.1.0") == "- B.\n"
    with pytest.raises(ValueError, match=r"no section \[1\.20\]"):
        dist.notes(text, "1.20")


def test_what_renders_manifests_refuses_what_it_does_not_know() -> None:
    for arguments in (["nope", IMAGE], ["self-signed", "no-tag"]):
        with pytest.raises(Exception, match="returned non-zero exit status 2"):
            dist.manifests(*arguments)


def test_the_workflow_ships_what_is_made_here_on_the_bases_of_the_dockerfile() -> None:
    shipped = set(re.findall(r"dist/([\w.-]+\.(?:yaml|md))", WORKFLOW))
    assert shipped == {*dist.MANIFESTS, "notes.md"}
    bases = dict(re.findall(r"^([A-Z]+)=([^\s@]+)", (ROOT / ".github/bases.env").read_text(), re.MULTILINE))
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, image in bases.items():
        assert f"\nARG {name}={image}\n" in dockerfile
        assert f"{name}=${{{{ env.BASE_{name} }}}}\n" in WORKFLOW
    assert set(re.findall(r"^FROM \$\{(\w+)\}", dockerfile, re.MULTILINE)) == set(bases)
