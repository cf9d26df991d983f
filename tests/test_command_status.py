"""`status`: with Pods that really run and an S3 server, and what is printed for people and for programs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml

from injector import GROUP, cli, options
from injector.command import health, status
from injector.pod.containers import REPLICATE
from tests import reviews
from tests.durability.stage import NATIVE_05, Row, Stage, away, end, started, write
from tests.kubelet import Kubelet
from tests.podrunner.s3 import S3
from tests.terminal import COMMAND, ROOT, on_terminal, piped
from tests.test_command_pods import event, placed
from tests.test_docs import _texts
from tests.test_kubectl import standin
from tests.test_sidecar_script import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Object = dict[str, Any]
LACKS = "lacks what Litestream has put there: were files deleted?"
ASKING = placed(reviews.pod(), "bare")
OLD = placed(
    reviews.injected(reviews.pod(image="litestream/litestream:0.3.13")),
    "old",
    containerStatuses=[{"name": REPLICATE, "state": {"running": {"startedAt": "2026-11-29T11:00:00Z"}}}],
)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


def said(kubelet: Kubelet, capsys: pytest.CaptureFixture[str], **asked: Any) -> tuple[int, Object]:
    code = status.run(kubelet, reviews.DEFAULTS, output="json", **asked)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.containers
def test_a_pod_that_replicates_is_well_while_its_bucket_is_there_and_not_while_it_is_away(
    s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    row, databases = Row("", NATIVE_05), ("/data/app.db", "/data/my other.db")
    with Stage(NATIVE_05, s3, databases=databases) as stage:
        run = stage.start()
        write(run, row, 100)
        code, found = said(Kubelet(run), capsys)
        assert (code, found["problems"]) == (0, [])
        assert [each["state"] for each in found["databases"]] == ["ok", "ok"]
        for each in found["databases"]:
            assert each["replica"] == f"s3://litestream/default/pod/{stage.name}{each['database']}"
            assert (each["litestream"], each["endpoint"], each["phase"]) == ("0.5.17", s3.endpoint, "Running")
            assert each["size"] > 0
            assert int(each["position"], 16) >= int(each["replicaPosition"], 16) > 0
        with away(s3):
            code, found = said(Kubelet(run), capsys)
        assert code == 1
        sentence = rf"bucket litestream at {s3.endpoint} does not answer; its last sync was \d+s ago"
        assert [bool(re.fullmatch(sentence, each["message"])) for each in found["problems"]] == [True, True]
        assert [each["state"] for each in found["databases"]] == ["failing", "failing"]
        end(run, row)


@pytest.mark.slow
@pytest.mark.containers
def test_a_replica_whose_files_are_gone_is_told(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    """Litestream itself believes that all is well."""
    with Stage(NATIVE_05, s3) as stage:
        run = stage.start(writes=False)
        started(run, Row("", NATIVE_05))
        run.exec(REPLICATE, ["sqlite3", "/data/app.db", "PRAGMA journal_mode=wal; CREATE TABLE t (a)"])
        prefix = f"default/pod/{stage.name}/data/app.db/"
        until(lambda: said(Kubelet(run), capsys)[1]["databases"][0]["state"] == "ok", run.state)
        for key in s3.list_keys("litestream", prefix):
            s3.delete("litestream", key)
        until(lambda: said(Kubelet(run), capsys)[0] == 1, run.state)
        _, found = said(Kubelet(run), capsys)
        messages = [each["message"] for each in found["problems"]]
        assert messages == [f"its replica in bucket litestream at {s3.endpoint} {LACKS}"]
        run.delete()


@pytest.mark.slow
@pytest.mark.containers
def test_without_a_shell_in_the_image_the_last_sync_is_told(s3: S3, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("", NATIVE_05)
    with Stage(NATIVE_05, s3, annotations={"image": "litestream/litestream:0.5.17-scratch"}) as stage:
        run = stage.start()
        write(run, row, 100)
        code, found = said(Kubelet(run), capsys)
        (database,) = found["databases"]
        assert (code, database["state"], database["litestream"]) == (0, "ok", "0.5.17")
        assert database["ageSeconds"] < 60
        assert (database["position"], database["replicaPosition"], database["size"]) == (None, None, None)
        end(run, row)


def test_a_pod_that_asks_in_vain_one_that_is_refused_and_an_old_one(capsys: pytest.CaptureFixture[str]) -> None:
    kubelet = Kubelet(others=[ASKING, OLD], events=[event("ReplicaSet", "web-6f", "2026-11-29T12:00:00Z")])
    assert status.run(kubelet, reviews.DEFAULTS) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].split() == list(status.HEADINGS)
    rows = [line.split() for line in printed.out.split("\n\n")[0].splitlines()[1:]]
    assert [(row[1], row[2], row[-1]) for row in rows] == [
        ("bare", "-", "missing"),
        ("old", "/mnt/litestream.db", "unknown"),
        ("ReplicaSet/web-6f", "-", "refused"),
    ]
    lines = printed.out.split("\n\n")[1].splitlines()
    assert lines[0].startswith("error: Pod shop/bare: asks for injection and has no Litestream")
    assert lines[1] == "error: ReplicaSet shop/web-6f: its Pods are refused: it is wrong"
    assert lines[2].startswith("warning: Pod shop/old: its Litestream says nothing of its state")
    assert printed.err == "1 Pod, 1 database, 2 without Litestream: 2 errors, 2 warnings\n"


def test_a_sentence_that_is_true_of_many_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    several = [placed(reviews.pod(), f"bare-{number}") for number in range(5)]
    status.run(Kubelet(others=several), reviews.DEFAULTS)
    (line,) = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert line.startswith("error: Pod shop/bare-0, Pod shop/bare-1, Pod shop/bare-2 and 2 more: asks for")


def test_nothing_of_a_pods_text_reaches_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J"
    marks = json.dumps({"databases": {f"/{evil}": evil}, "bucket": evil, "endpoint": evil})
    own = {**OLD["metadata"]["annotations"], f"{GROUP}/status": marks}
    states = [{"name": REPLICATE, "state": {"terminated": {"exitCode": 1, "message": evil}}}]
    pod = {**OLD, "metadata": {**OLD["metadata"], "annotations": own}, "status": {"containerStatuses": states}}
    for output in ("wide", "json", "yaml"):
        status.run(Kubelet(others=[pod]), reviews.DEFAULTS, output=output)
        assert "\x1b" not in capsys.readouterr().out


def test_wide_says_where_the_replica_is(capsys: pytest.CaptureFixture[str]) -> None:
    status.run(Kubelet(others=[OLD]), reviews.DEFAULTS, output="wide")
    heading, row = capsys.readouterr().out.splitlines()[:2]
    assert heading.split()[-4:] == ["WORKLOAD", "IN", "REPLICA", "REPLICA"]
    assert row.endswith("0.3.13      pod/old   -           s3://litestream/default/pod/web/mnt/litestream.db")


def test_yaml_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    kubelet = Kubelet(others=[ASKING, OLD])
    found = said(kubelet, capsys)[1]
    assert status.run(kubelet, reviews.DEFAULTS, output="yaml") == 1
    assert yaml.safe_load(capsys.readouterr().out) == found
    assert found["totals"] == {"pods": 1, "databases": 1, "missing": 1, "errors": 1, "warnings": 2, "unknown": 0}


def test_json_has_the_fields_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "status.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page.split("## JSON")[1], re.MULTILINE)
    found = said(Kubelet(others=[ASKING, OLD]), capsys)[1]
    assert sorted(documented) == sorted({*found, *found["databases"][0], *found["problems"][0], *found["totals"]})


def test_the_documentation_shows_what_would_be_printed() -> None:
    """Its columns, its states, and each of its sentences."""
    page = (ROOT / "docs" / "status.md").read_text()
    shown = re.findall(r"^```console\n\$ [^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    texts = [part for text in _texts() for part in text.split("\0") if len(part) > 12]
    states = set(get_args(health.State))
    assert set(re.findall(r"^\| `(\w+)` \|", page.split("| state |")[1].split("\n\n")[0], re.MULTILINE)) == states
    for table, sentences in (each.split("\n\n") for each in shown):
        heading, *rows = table.splitlines()
        assert tuple(re.split("  +", heading)) in (status.HEADINGS, status.WIDE)
        assert {re.split("  +", row)[6] for row in rows} <= states
        for line in sentences.splitlines()[:-1]:
            assert any(part in line for part in texts), line


@pytest.mark.parametrize(("workload", "code"), [("", 0), ("deployment/web", 1)])
def test_a_workload_without_pods_is_an_error_and_an_empty_namespace_is_none(
    workload: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status.run(Kubelet(), reviews.DEFAULTS, workload=workload, namespace="shop") == code
    said = f"there is no Pod{' of deployment/web' if workload else ''} that asks for injection in namespace shop"
    assert capsys.readouterr().out == f"{'error' if code else 'warning'}: {said}\n"


def test_a_cluster_that_can_not_be_asked_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl = standin(tmp_path, "echo 'Unable to connect to the server: no route' >&2; exit 1")
    assert status.run(kubectl, reviews.DEFAULTS) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "kubectl can't list pods: Unable to connect to the server: no route\n")


def test_what_can_not_be_asked_is_neither_well_nor_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, so that a script can tell the two from each other."""
    living = placed(
        reviews.injected(reviews.pod()),
        "web",
        containerStatuses=[{"name": REPLICATE, "state": {"running": {"startedAt": "2026-11-29T11:00:00Z"}}}],
    )
    (tmp_path / "pods").write_text(json.dumps({"items": [living]}))
    script = f"""case "$*" in
      *can-i*) echo no; exit 1;;
      *'get pods'*) cat {tmp_path}/pods;;
      *) echo 'Error from server (Forbidden): no' >&2; exit 1;;
    esac"""
    assert status.run(standin(tmp_path, script), reviews.DEFAULTS, namespace="shop") == 2
    printed = capsys.readouterr()
    assert "unknown: Pods that are refused are not shown: you may not list events in namespace shop" in printed.out
    assert "unknown: Pod shop/web: you may not create pods/exec in namespace shop; with this rule in a" in printed.out
    assert printed.err == "1 Pod, 1 database: 0 errors, 0 warnings, 2 not asked\n"


def test_the_command_line_passes_on_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standin(tmp_path, "echo '{\"items\": []}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert cli.main(["status", "--context", "far", "--kubeconfig", "/c", "-n", "shop", "--max-age", "10m"]) == 0
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:6] == ["--context=far", "--kubeconfig=/c", "--namespace=shop", "get", "pods", "--output=json"]
    (tmp_path / "asked").unlink()
    assert cli.main(["status", "-A", "web"]) == 1
    assert "--all-namespaces" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-age", "soon"], 'argument --max-age: "soon": write a duration'),
        (["service/web"], 'WORKLOAD: "service/web": write NAME or KIND/NAME, such as deployment/web'),
        (["-o", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], sentence: str) -> None:
    done = piped("status", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.slow
def test_states_have_colours_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    standin(tmp_path, f"echo '{json.dumps({'items': [ASKING]})}'")
    command = ["env", f"PATH={tmp_path}:/usr/bin:/bin", *COMMAND, "status"]
    code, seen = on_terminal(command)
    assert code == 1
    assert "\x1b[31mmissing\x1b[0m" in seen
    assert "\x1b" not in on_terminal(["env", "NO_COLOR=1", *command[1:]])[1]


@pytest.mark.slow
def test_on_a_terminal_a_long_wait_says_how_far_it_is(tmp_path: Path) -> None:
    living = placed(
        reviews.injected(reviews.pod()),
        "web",
        containerStatuses=[{"name": REPLICATE, "state": {"running": {"startedAt": "2026-11-29T11:00:00Z"}}}],
    )
    (tmp_path / "pods").write_text(json.dumps({"items": [living]}))
    (tmp_path / "none").write_text('{"items": []}')
    script = f'case "$*" in *"get pods"*) cat {tmp_path}/pods;; *get*) cat {tmp_path}/none;; *) sleep 3;; esac'
    standin(tmp_path, script)
    _, seen = on_terminal(["env", f"PATH={tmp_path}:/usr/bin:/bin", *COMMAND, "status"])
    assert "\r\x1b[K0 of 1 Pods" in seen


def test_of_a_variant_only_its_own_pods_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    variant = {**ASKING, "metadata": {**ASKING["metadata"], "annotations": {f"x.{GROUP}/inject": "true"}}}
    assert status.run(Kubelet(others=[variant]), options.read({"VARIANT": "x"})) == 1
    assert status.run(Kubelet(others=[variant]), reviews.DEFAULTS) == 0
    capsys.readouterr()
