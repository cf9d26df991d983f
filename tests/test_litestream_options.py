"""What the operator adds to Litestream's config is what Litestream knows there, of the right type."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from injector import GROUP, options
from injector.annotations import operator_file, settings
from injector.annotations.findings import Findings
from injector.annotations.litestream_options import BY_KEY, LITESTREAM_OPTIONS
from injector.annotations.operator_file import InvalidDefaults
from injector.pod import litestream
from tests.podrunner.images import litestream_binary

if TYPE_CHECKING:
    from pathlib import Path

    from injector.annotations.litestream_options import LitestreamOption

Object = dict[str, Any]
FILE = """
litestream-options:
  levels: [{interval: 5m}, {interval: 30m}, {interval: 6h}]
  retention: {enabled: false}
  heartbeat-url: https://hc.example.com/ping/1
  logging: {type: json}
  checkpoint-interval: 1h
  min-checkpoint-page-count: 500
  truncate-page-n: 250000
  busy-timeout: 2s
  part-size: 16MiB
  concurrency: 2
"""


def config(text: str = FILE, **own: str) -> Object:
    """Litestream's config, where the operator's file says this."""
    keys = {key.replace("_", "-"): value for key, value in own.items()}
    findings = Findings(GROUP)
    defaults = operator_file.read(text, options.read({})).of("default")
    asked = settings.read({"inject": "true", **keys}, options.read({}), findings, defaults)
    assert findings.violations == []
    found: Object = json.loads(litestream.config(asked, {"/data/app.db": "app"}))
    return found


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidDefaults) as caught:
        operator_file.read(f"litestream-options: {text}", options.read({}))
    return str(caught.value).splitlines()


def test_each_key_stands_where_litestream_reads_it() -> None:
    found = config()
    (database,) = found["dbs"]
    (replica,) = database["replicas"]
    assert found["levels"] == [{"interval": text} for text in ("5m", "30m", "6h")]
    assert found["retention"] == {"enabled": False}
    assert found["heartbeat-url"] == "https://hc.example.com/ping/1"
    assert found["logging"] == {"type": "json", "level": "info"}
    assert (database["checkpoint-interval"], database["busy-timeout"]) == ("1h", "2s")
    assert (database["min-checkpoint-page-count"], database["truncate-page-n"]) == (500, 250000)
    assert (replica["part-size"], replica["concurrency"]) == ("16MiB", 2)
    assert (replica["bucket"], replica["path"]) == ("litestream", "app")


def test_the_test_s_file_has_every_key() -> None:
    assert operator_file.read(FILE, options.read({})).litestream.keys() == BY_KEY.keys()


def test_nothing_is_added_without_the_operator_s_word() -> None:
    found = config("{}")
    assert found.keys() == {
        "logging",
        "snapshot",
        "l0-retention-check-interval",
        "shutdown-sync-timeout",
        "socket",
        "dbs",
    }


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"retention": "24h"}, "/retention has no effect: the operator lets Litestream delete nothing in the bucket"),
        ({}, ""),
        ({"retention": "24h", "image": "litestream/litestream:0.5.7"}, ""),
    ],
)
def test_a_retention_that_the_operator_has_switched_off_is_told(own: dict[str, str], told: str) -> None:
    findings = Findings(GROUP)
    defaults = operator_file.read(FILE, options.read({})).of("default")
    settings.read({"inject": "true", **own}, options.read({}), findings, defaults)
    warnings = [warning for warning in findings.warnings if "no effect" in warning]
    assert warnings == ([GROUP + told] if told else [])


def test_another_store_gets_no_key_of_s3() -> None:
    (replica,) = config(bucket="gs://my-bucket")["dbs"][0]["replicas"]
    assert replica.keys() == {"type", "bucket", "path", "sync-interval"}


def test_an_older_litestream_gets_no_key_that_it_would_ignore() -> None:
    found = config(image="litestream/litestream:0.3.13")
    assert found["logging"] == {"type": "json", "level": "info"}
    assert found.keys() == {"logging", "dbs"}
    (database,) = found["dbs"]
    assert database.keys() == {"path", "checkpoint-interval", "min-checkpoint-page-count", "replicas"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "release"),
    [
        pytest.param(option, release, id=f"{option.key}-{release}")
        for option in LITESTREAM_OPTIONS
        for release in ("0.5.17", "0.3.13")
        if option.since <= tuple(map(int, release.split(".")))
    ],
)
def test_litestream_knows_each_key_where_it_stands(option: LitestreamOption, release: str, tmp_path: Path) -> None:
    """It ignores what it does not know, and refuses a value of another type: so each is given one of those."""
    found = config(image=f"litestream/litestream:{release}")
    assert databases(found, release, tmp_path).returncode == 0
    database = found["dbs"][0]
    place = {"top": found, "database": database, "s3": database["replicas"][0]}[option.place]
    outer, _, inner = option.key.partition(".")
    if inner:
        place, outer = place[outer], inner
    place[outer] = "neither this" if option.key == "levels" else {"neither": "this"}
    done = databases(found, release, tmp_path)
    assert done.returncode != 0
    assert "cannot unmarshal" in done.stderr + done.stdout
    del place[outer]
    place["un" + outer] = {"neither": "this"}
    assert databases(found, release, tmp_path).returncode == 0, "an unknown key is not ignored any more"


def databases(found: Object, release: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Litestream reads a config, and lists its databases."""
    file = folder / "litestream.yml"
    file.write_text(json.dumps(found))
    command: list[str | Path] = [litestream_binary(release), "databases", "-config", file, "-no-expand-env"]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a]", "litestream-options: a list or mapping: write KEY: VALUE"),
        ("{dbs: x}", "litestream-options.dbs: is none of levels, retention.enabled"),
        ("{retention: {interval: 1h}}", "litestream-options.retention.interval: is none of"),
        ("{levels: 5m}", 'litestream-options.levels: "5m": write a list of 1 to 8 intervals'),
        ("{levels: []}", "litestream-options.levels: a list or mapping: write a list"),
        ("{levels: [5m]}", "litestream-options.levels: a list or mapping: write a list"),
        ("{levels: [{interval: 5}]}", "litestream-options.levels: a list or mapping: write a duration"),
        ("{retention: {enabled: maybe}}", 'litestream-options.retention.enabled: "maybe": write "true" or "false"'),
        ("{retention: false}", "litestream-options.retention: is none of"),
        ("{heartbeat-url: hc.example.com}", 'litestream-options.heartbeat-url: "hc.example.com": write a URL'),
        ("{logging: {type: xml}}", 'litestream-options.logging.type: "xml": write "text" or "json"'),
        ("{checkpoint-interval: 60}", 'litestream-options.checkpoint-interval: "60": write a duration'),
        ("{checkpoint-interval: [1m]}", "litestream-options.checkpoint-interval: a list or mapping: write one value"),
        ("{busy-timeout: }", "litestream-options.busy-timeout: nothing: write one value"),
        ("{min-checkpoint-page-count: 0}", 'litestream-options.min-checkpoint-page-count: "0": write a number from 1'),
        ("{truncate-page-n: 0}", 'litestream-options.truncate-page-n: "0": write a number from 1'),
        ("{part-size: 4MiB}", 'litestream-options.part-size: "4MiB": write an amount of at least 5MiB'),
        (
            "{part-size: 6GiB}",
            'litestream-options.part-size: "6GiB": write an amount of at least 5MiB and at most 5GiB',
        ),
        (
            "{retention: {enabled: false}, retention.enabled: true}",
            "litestream-options.retention.enabled: is there twice",
        ),
        ("{part-size: 5000000}", 'litestream-options.part-size: "5000000": write an amount'),
        ("{concurrency: 0}", 'litestream-options.concurrency: "0": write a number from 1 to 64'),
    ],
)
def test_what_litestream_would_ignore_or_refuse_is_told_by_its_name(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


def test_every_wrong_key_is_told_at_once() -> None:
    assert len(problems("{dbs: x, concurrency: no, levels: no}")) == 3
