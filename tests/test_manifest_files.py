"""The command line on files as people write them: what is not ours stays, and nothing is half applied."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.terminal import piped

pytestmark = pytest.mark.slow  # each starts the command

ROOT = Path(__file__).resolve().parent.parent
GROUP = "litestream-hook.kaidotio.github.io"
POD = f"""\
# why it is there
apiVersion: v1
kind: Pod   # a Pod
metadata:
  name: web
  annotations:
    {GROUP}/inject: "true"   # please
    other: 'yes'
spec:
  securityContext: {{runAsUser: 1000}}
  containers:
    # the application
    - name: app
      image: "app:1"
      env:
        - {{name: MODE, value: "0755"}}
        - name: DATE
          value: "2026-01-31"
  # the end
"""
OTHER = """\
# not ours
kind: Unknown
apiVersion: example.com/v1
when: 2026-01-31
modes: [0755, 1:30, yes, ~, 1e3]
"""


def run(command: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "injector", command, *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def test_comments_order_and_other_documents_stay_as_they_were() -> None:
    text = f"{OTHER}---\n{POD}--- # the last\n{OTHER}"
    done = run("inject", "--namespace", "default", text=text)
    assert (done.returncode, done.stderr) == (0, "")
    parts = done.stdout.split("---")
    assert (parts[0], parts[2]) == (OTHER, f" # the last\n{OTHER}")
    for line in POD.splitlines():
        assert line in parts[1].splitlines()
    assert "litestream-hook-replicate" in parts[1]


def test_injecting_what_was_injected_changes_no_byte() -> None:
    once = run("inject", "--namespace", "default", text=POD).stdout
    assert run("inject", "--namespace", "default", text=once).stdout == once


def test_ends_of_lines_stay_and_a_byte_order_mark_is_read() -> None:
    lf = piped("inject", "--namespace", "default", text=POD).stdout
    assert "litestream-hook-init" in lf
    assert piped("inject", "--namespace", "default", text=POD.replace("\n", "\r\n")).stdout == lf.replace("\n", "\r\n")
    assert piped("inject", "--namespace", "default", text="\ufeff" + POD).stdout == lf


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_in_gives_json_out(indent: int | str | None) -> None:
    text = json.dumps(yaml.safe_load(POD), indent=indent) + "\n"
    done = piped("inject", "--namespace", "default", text=text)
    injected = json.loads(done.stdout)
    assert injected == yaml.safe_load(piped("inject", "--namespace", "default", text=POD).stdout)
    assert done.stdout == json.dumps(injected, indent=indent) + "\n"


@pytest.mark.parametrize("kind", ["ConfigMap", "Pod"])
def test_json_with_nothing_of_ours_stays_as_it_is_written(kind: str) -> None:
    text = '{ "kind": "List","items": [ {"kind": "KIND", "apiVersion": "v1",\n "data": [1, 1e3] } ]\n}\n'
    assert piped("inject", text=text.replace("KIND", kind)).stdout == text.replace("KIND", kind)


def test_a_document_whose_anchors_stand_for_several_places_means_the_same_afterwards() -> None:
    text = POD.replace(
        '    - name: app\n      image: "app:1"\n      env:\n',
        '    - &one\n      name: app\n      image: "app:1"\n      volumeMounts: &mounts []\n      env: &env\n',
    ).replace("  # the end\n", '    - {name: two, image: "1e3", volumeMounts: *mounts, env: *env, workingDir: "y"}\n')
    done = run("inject", "--namespace", "default", text=text)
    assert done.returncode == 0, done.stderr
    (app, two) = yaml.safe_load(done.stdout)["spec"]["containers"]
    assert len(app["volumeMounts"]) == len(two["volumeMounts"]) == 1
    assert (two["image"], two["workingDir"], two["env"][0]["value"]) == ("1e3", "y", "0755")
    if "*" not in done.stdout:
        assert "'1e3'" in done.stdout
        assert "'y'" in done.stdout


def test_every_item_of_lists_is_injected_and_named() -> None:
    items = [yaml.safe_load(OTHER), yaml.safe_load(POD)]
    text = yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": items})
    injected = yaml.safe_load(run("inject", "--namespace", "default", text=text).stdout)["items"]
    assert injected[0] == items[0]
    assert injected[1] == yaml.safe_load(run("inject", "--namespace", "default", text=POD).stdout)
    checked = run("check", text=text.replace("runAsUser: 1000", "runAsGroup: 1000"))
    assert checked.returncode == 1
    assert checked.stdout.startswith("standard input:16: error: Pod default/web: ")


def test_nothing_is_printed_when_anything_is_wrong(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(POD)
    wrong = POD.replace("other: 'yes'", f"{GROUP}/bucket: 'My'")
    bad.write_text(f"{OTHER}---\n{wrong}")
    done = run("inject", "--namespace", "default", str(good), str(bad))
    assert (done.returncode, done.stdout) == (1, "")
    assert f'{bad}:14: error: Pod default/web: {GROUP}/bucket: "My"' in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: b: c\n", "standard input:1: error: mapping values are not allowed"),
        ("a: 1\n---\nb: [\n", "standard input:4: error: "),
        ("a: 1\na: 2\n", "is there twice"),
        ("&a [*a]\n", "standard input:1: error: it is nested too deeply, or stands for itself"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 10)}]\n" for m, n in zip("abcdef", "bcdefg", strict=True)),
            "values",
        ),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, says: str) -> None:
    done = run("check", text=text)
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert done.returncode == 2


def test_a_missing_file_a_wrong_option_and_a_wrong_call_have_exit_code_2(tmp_path: Path) -> None:
    assert run("check", str(tmp_path / "none.yaml")).returncode == 2
    assert run("check", "--default-run-as-user", "root", text=POD).returncode == 2
    assert run("unknown").returncode == 2
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    assert run("check", str(tmp_path / "latin.yaml")).returncode == 2


def test_an_unquoted_boolean_is_told_how_to_be_written() -> None:
    done = run("check", text=POD.replace('inject: "true"', "inject: true"))
    assert done.returncode == 1
    assert f'{GROUP}/inject: "true": must be a string: write "true"' in done.stdout


def test_the_namespace_decides_the_path_and_the_object_s_own_comes_first() -> None:
    def path(text: str) -> str:
        status = yaml.safe_load(run("inject", "--namespace", "default", "-n", "shop", text=text).stdout)["metadata"][
            "annotations"
        ]
        databases: dict[str, str] = json.loads(status[f"{GROUP}/status"])["databases"]
        return databases["/mnt/litestream.db"]

    assert path(POD) == "shop/pod/web/mnt/litestream.db"
    assert path(POD.replace("  name: web\n", "  name: web\n  namespace: own\n")) == "own/pod/web/mnt/litestream.db"
