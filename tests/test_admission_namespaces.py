"""Defaults on the command line: the operator's file, and Namespaces among the manifests, as in the cluster later."""

from pathlib import Path

import pytest
import yaml

from injector import GROUP, cli
from tests import reviews

NAMESPACE = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: shop, annotations: {{{GROUP}/bucket: BUCKET, {GROUP}/inject: "true"}}}}
"""
FILE = "defaults: {endpoint: 'http://minio:9000', bucket: far}\nenforce: [endpoint]\n"


def pod(**annotations: str) -> str:
    written = reviews.pod(None, {"name": "web", "namespace": "shop"}, **annotations)
    text: str = yaml.safe_dump(written)
    return text


def run(
    capsys: pytest.CaptureFixture[str], folder: Path, command: str, *documents: str, file: str = FILE, on: str = "false"
) -> tuple[int, str, str]:
    (folder / "manifest.yaml").write_text("---\n".join(documents))
    (folder / "defaults.yaml").write_text(file)
    options = ["--defaults-file", str(folder / "defaults.yaml"), "--namespace-defaults", on]
    code = cli.main([command, *options, str(folder / "manifest.yaml")])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_file_of_defaults_is_applied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(capsys, tmp_path, "inject", pod())
    assert code == 0
    assert '"endpoint":"http://minio:9000"' in output
    assert '"bucket":"far"' in output


def test_a_files_policy_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = run(capsys, tmp_path, "check", pod(endpoint="http://other"))
    assert code == 1
    assert "is for the operator to choose" in output


@pytest.mark.parametrize("command", ["check", "inject"])
def test_a_broken_file_is_told_and_nothing_is_done(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, error = run(capsys, tmp_path, command, pod(), file="defaults: {bucket: B, buckt: b}")
    assert (code, output) == (2, "")
    assert 'defaults.yaml: defaults.bucket: "B": write an S3 bucket name' in error
    assert "did you mean bucket?" in error


def test_a_namespace_beside_a_pod_has_defaults_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = NAMESPACE.replace("BUCKET", "near")
    for documents in ((namespace, pod()), (pod(), namespace)):
        _, output, error = run(capsys, tmp_path, "inject", *documents, on="true")
        assert '"bucket":"near"' in output
        assert 'Namespace shop: "inject" has no effect here: each Pod asks for itself' in error


def test_a_namespaces_mistake_is_told_at_the_namespace_and_at_its_pods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = run(capsys, tmp_path, "check", NAMESPACE.replace("BUCKET", "B"), pod(), on="true")
    assert code == 1
    lines = [line for line in output.splitlines() if 'bucket: "B": write an S3 bucket name' in line]
    assert [": Namespace " in line for line in lines] == [True, False]
    code, output, _ = run(capsys, tmp_path, "check", NAMESPACE.replace("BUCKET", "5"), on="true")
    assert f'{GROUP}/bucket: "5": must be a string' in output


def test_where_they_do_not_count_a_namespaces_annotations_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = run(capsys, tmp_path, "check", NAMESPACE.replace("BUCKET", "near"))
    assert code == 1
    assert "only if the operator has set NAMESPACE_DEFAULTS to true" in output
    _, output, _ = run(capsys, tmp_path, "inject", pod(), NAMESPACE.replace("BUCKET", "near").replace(GROUP, "x"))
    assert '"bucket":"far"' in output
