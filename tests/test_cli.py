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


ROLLOUT = """\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: r, namespace: shop}
spec:
  template:
    metadata: {annotations: {litestream-hook.kaidotio.github.io/inject: "true"}}
    spec: {containers: [{name: app, image: "a:1", securityContext: {runAsUser: 1000}}]}
"""
TYPO = """\
apiVersion: v1
kind: Pod
metadata: {name: w, namespace: shop, annotations: {GROUP/inject: "true"}}
spec: {containers: [{name: app, image: "a:1"}]}
"""
NOWHERE = """\
apiVersion: v1
kind: Pod
metadata: {name: w, annotations: {litestream-hook.kaidotio.github.io/inject: "true"}}
spec: {containers: [{name: app, image: "a:1", securityContext: {runAsUser: 1000}}]}
"""


@pytest.mark.parametrize("command", ["check", "inject"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ROLLOUT, "is on a Rollout of argoproj.io/v1alpha1, which nobody looks at"),
        (
            TYPO.replace("GROUP", "litestream-hook.kaidoto.github.io"),
            "did you mean litestream-hook.kaidotio.github.io?",
        ),
        (
            TYPO.replace("GROUP", "litestreamhook.kaidotio.github.io"),
            "did you mean litestream-hook.kaidotio.github.io?",
        ),
    ],
    ids=["kind", "typo", "hyphen"],
)
def test_annotations_that_no_webhook_sees_are_told(
    command: str, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "object.yaml"
    file.write_text(text)
    assert cli.main([command, str(file)]) == 1
    captured = capsys.readouterr()
    assert told in (captured.out if command == "check" else captured.err)


def test_another_group_and_another_variant_are_no_typos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "object.yaml"
    for group in ("skaffold.litestream-hook.kaidotio.github.io", "prometheus.io", "sidecar.istio.io"):
        file.write_text(TYPO.replace("GROUP", group))
        assert cli.main(["check", str(file)]) == 0
        assert capsys.readouterr().out == ""


def test_an_object_is_not_injected_before_its_namespace_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else one output, applied in two namespaces, would make two databases write one replica."""
    file = tmp_path / "object.yaml"
    file.write_text(NOWHERE)
    assert cli.main(["inject", str(file)]) == 1
    assert "--namespace NAME" in capsys.readouterr().err
    assert cli.main(["inject", "-n", "shop", str(file)]) == 0
    assert "shop/pod/w/mnt/litestream.db" in capsys.readouterr().out
    file.write_text(
        NOWHERE.replace("inject: ", "replica-path: 'one/{database}', litestream-hook.kaidotio.github.io/inject: ")
    )
    assert cli.main(["inject", str(file)]) == 0


def test_check_ends_with_what_it_has_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(ROLLOUT + "---\n" + NOWHERE)
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
    cli.main(["check", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    assert capsys.readouterr().err == "2 files, 3 objects, 2 with our annotations: 1 mistake, 0 risks\n"


def test_the_table_says_where_each_value_would_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "defaults.yaml"
    file.write_text(
        "defaults: {bucket: far, region: far}\nnamespaces: {shop: {bucket: near}}\nenforce: [region]\n"
        "allow: {secret: ['{namespace}-*']}\n"
    )
    assert cli.main(["annotations", "--defaults-file", str(file), "--namespace", "shop"]) == 0
    rows = dict(line[2:].split(" | ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("| `"))
    assert rows["`bucket`"].startswith("`near` | the operator's defaults for namespace shop | ")
    assert rows["`region`"].startswith("`far` | the operator's defaults; enforced | ")
    assert rows["`secret`"].startswith("`litestream-hook-secret` | built in; allowed: `shop-*` | ")
    assert cli.main(["annotations"]) == 0
    assert "| from |" not in capsys.readouterr().out
