"""The command line on manifests that no API server would take."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from injector import cli
from tests.terminal import COMMAND, ROOT, on_terminal, piped


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
NOWHERE = """\
apiVersion: v1
kind: Pod
metadata: {name: w, annotations: {litestream-hook.kaidotio.github.io/inject: "true"}}
spec: {containers: [{name: app, image: "a:1", securityContext: {runAsUser: 1000}}]}
"""


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
    file.write_text(file.read_text().replace("one/{database}'", "one/{database}', GROUP/restore-from: '{namespace}/x'")
                    .replace("GROUP", "litestream-hook.kaidotio.github.io"))  # fmt: skip
    assert cli.main(["inject", str(file)]) == 1


def test_check_ends_with_what_it_has_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(ROLLOUT + "---\n" + NOWHERE)
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
    cli.main(["check", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    assert capsys.readouterr().err == "2 files, 3 objects, 2 with our annotations: 1 error, 0 warnings\n"


def test_help_loads_nothing_that_a_command_needs() -> None:
    """It is to be there at once, and so is what a shell asks for to complete a line."""
    program = (
        "import sys\nfrom injector import cli\ntry:\n cli.main(['--help'])\nfinally:\n print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    loaded = done.stdout.splitlines()[-1].split()
    assert "injector.cli" in loaded
    heavy = {"asyncio", "jsonpatch", "msgspec", "shtab", "ssl", "uvicorn", "yaml"}
    assert heavy & {name.partition(".")[0] for name in loaded} == set()
    ours = {name for name in loaded if name.startswith("injector.")}
    assert ours <= {f"injector.{name}" for name in ("cli", "command", "errors", "options", "values")}


def test_help_names_every_command_and_each_has_its_own() -> None:
    text = piped("--help").stdout
    for command in ("inject", "check", "annotations", "status", "review", "apply", "completion", "serve"):
        assert re.search(rf"^    {command}\s", text, re.MULTILINE)
        assert piped(command, "--help").returncode == 0


def test_kubectl_finds_it_as_its_plugin(tmp_path: Path) -> None:
    """Flags behind the name are the plugin's, as kubectl has it."""
    plugin = tmp_path / "kubectl-litestream"
    plugin.write_text(f"#!{sys.executable}\nimport sys\nfrom injector.cli import main\nsys.exit(main())\n")
    plugin.chmod(0o755)
    kubectl = ROOT / ".venv" / "bin" / "kubectl"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(kubectl), "litestream", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert called("status", "--help").stdout.startswith("usage: kubectl litestream status [-h]")
    done = called("status", "--kubeconfig", f"{tmp_path}/absent")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/absent: no such file or directory" in done.stderr


def test_ctrl_c_ends_a_command_quietly() -> None:
    code, seen = on_terminal([*COMMAND, "check"], b"kind: Pod\n", b"Ctrl-D ends it", b"\x03")
    assert code == 130
    assert "Traceback" not in seen


def test_a_reader_that_leaves_ends_a_command_quietly(tmp_path: Path) -> None:
    many = tmp_path / "many.yaml"
    many.write_text("---\n".join([ROLLOUT] * 500))
    line = f"{sys.executable} -m injector check {many} 2>&1 | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


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
