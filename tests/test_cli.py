"""The command line on manifests that no API server would take."""

from pathlib import Path

import pytest

from injector import cli


@pytest.mark.parametrize("key", ["1", "true", "1.5"])
def test_an_annotation_whose_key_is_no_text_is_no_crash(tmp_path: Path, key: str) -> None:
    file = tmp_path / "pod.yaml"
    metadata = f"metadata: {{name: w, annotations: {{{key}: x}}}}"
    file.write_text(f"apiVersion: v1\nkind: Pod\n{metadata}\nspec: {{containers: []}}\n")
    assert cli.main(["check", str(file)]) == 0
