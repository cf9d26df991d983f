"""A sidecar that is asked by exec: which way, and what is made of its answer (test_report_script.py has the script)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from injector.command import sidecar
from injector.pod.containers import REPLICATE
from tests import reviews
from tests.test_kubectl import asked, standin

HEALTHY = {"databases": [{"path": "/a.db", "status": "replicating", "last_sync_at": "2026-11-29T23:27:54.50616824Z"}]}


def spec_of(**annotations: str) -> reviews.Object:
    spec = reviews.injected(reviews.pod(**annotations))["spec"]
    return next(each for each in spec["initContainers"] + spec["containers"] if each["name"] == REPLICATE)


@pytest.mark.parametrize(
    ("image", "way"),
    [
        ("litestream/litestream:0.5.17", "shell"),
        ("litestream/litestream:0.5.17-scratch", "binary"),
        ("litestream/litestream:0.5.5", "none"),
        ("litestream/litestream:0.3.13", "none"),
    ],
)
def test_what_a_sidecar_can_be_asked_is_told_by_its_own_spec(image: str, way: str) -> None:
    assert sidecar.way(spec_of(image=image)) == way
    assert sidecar.way(spec_of(image=image, sidecar="container")) == way


def test_a_wrapper_in_front_of_the_command_changes_nothing() -> None:
    """As bank-vaults puts its own."""
    wrapped = spec_of()
    assert sidecar.way({**wrapped, "command": ["/vault/vault-env"], "args": wrapped["command"]}) == "shell"


def test_with_a_shell_one_call_asks_for_all_databases(tmp_path: Path) -> None:
    kubectl = standin(tmp_path, 'printf \'\\036info 0\\n{"version": "0.5.17"}\\n\'')
    report = sidecar.ask(kubectl, "web", "shop", ["/a b.db", "/$(c).db"], "shell")
    assert (report.version, [each.path for each in report.databases]) == ("0.5.17", ["/a b.db", "/$(c).db"])
    words = asked(tmp_path)
    assert words[:7] == ["--namespace=shop", "exec", "web", f"--container={REPLICATE}", "--", "/bin/sh", "-c"]
    assert words[-3:] == ["report", "/a b.db", "/$(c).db"]
    assert words.count("exec") == 1


def test_without_a_shell_litestream_is_asked_for_what_it_knows_by_itself(tmp_path: Path) -> None:
    """A question to the bucket could not be ended there."""
    script = f"case \"$*\" in *' info '*) echo '{{\"version\": \"0.5.16\"}}';; *) echo '{json.dumps(HEALTHY)}';; esac"
    report = sidecar.ask(standin(tmp_path, script), "web", "shop", ["/a.db", "/b.db"], "binary")
    assert (report.version, report.wrong) == ("0.5.16", [])
    first, second = report.databases
    assert first.synced == datetime(2026, 11, 29, 23, 27, 54, 506168, UTC)
    assert first.age is not None
    assert (first.position, second) == (None, sidecar.Database("/b.db"))
    assert not {"/bin/sh", "ltx"} & set(asked(tmp_path))


def test_without_a_shell_a_litestream_that_is_silent_is_told(tmp_path: Path) -> None:
    script = "echo 'Error: no socket' >&2; echo command terminated with exit code 1 >&2; exit 1"
    report = sidecar.ask(standin(tmp_path, script), "web", "shop", ["/a.db"], "binary")
    assert report.wrong == ["Litestream does not answer: no socket"]


@pytest.mark.parametrize(
    "text",
    [
        "", "\x1e", "\x1enow 0\n²\n", f"\x1esize 0\n{'9' * 5000}\n", f"\x1eseen {'9' * 5000}\n", "\x1elist 0\n[1]\n",
        '\x1elist 0\n{"databases": [1, {"path": 1}, {"path": "/a.db", "last_sync_at": "0001-01-01T00:00:00+14:00"}]}\n',
        '\x1einfo 0\n{"version": "\\u001b[2J"}\n', "\x1elist 0\n{", "\x1elist 0\n[]\n",
        '\x1elist 0\n{"databases": null}',
        "\x1enow 0\nsoon\n", "sh: no",
    ],
)  # fmt: skip
def test_an_answer_that_is_none_leaves_all_unknown(text: str) -> None:
    """Whoever owns the Pod may let it say anything."""
    assert sidecar.read(text, ["/a.db"]) == sidecar.Report(None, [], [sidecar.Database("/a.db")])


def test_no_sidecar_fills_the_terminal_with_what_is_wrong() -> None:
    faults = sidecar.read("\x1eready 1\n" + "it is\n" * 100_000, ["/a.db", "/b.db"]).wrong
    assert len(faults) == 2 + sidecar.MOST_FAULTS


def test_the_age_is_that_on_the_nodes_clock() -> None:
    now = int(datetime(2026, 11, 29, 23, 28, 4, tzinfo=UTC).timestamp())
    (database,) = sidecar.read(f"\x1enow 0\n{now}\n\x1elist 0\n{json.dumps(HEALTHY)}\n", ["/a.db"]).databases
    assert database.age == pytest.approx(9.49, abs=0.01)
