"""`verify` and `restore` follow a workload into each store that is not S3."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from injector.command import restore, verify
from tests import reviews
from tests.durability.stage import DATABASE, NATIVE_05, SCENARIO, Row, Stage, committed, end, started
from tests.jobs import Cluster
from tests.stores.test_pods import STORES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = SCENARIO


@pytest.mark.parametrize(("kind", "annotations"), STORES)
def test_a_replica_is_verified_and_restored_to_a_file(
    kind: Callable[[], Any], annotations: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("a Job beside a store", NATIVE_05)
    with kind() as store, Stage(NATIVE_05, store, annotations=annotations) as stage:
        run = stage.start()
        started(run, row)
        committed(run, 100)
        promised = end(run, row)
        cluster = Cluster(stage.node)
        cluster.put("pods", run.pod)
        name = f"pod/{stage.name}"
        code = verify.run(verify.Choice(name, output="json"), cluster, reviews.DEFAULTS)
        (found,) = json.loads(capsys.readouterr().out)["databases"]
        assert (code, found["good"], found["tables"]) == (0, True, [{"name": "entry", "rows": len(promised)}]), found
        target = tmp_path / "app.db"
        assert restore.run(restore.Choice(name, to=str(target)), cluster, reviews.DEFAULTS) == 0
        assert f"of {DATABASE} of {name}" in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(f"file:{target}?immutable=1", uri=True)) as reader:
        assert [number for (number,) in reader.execute("SELECT number FROM entry ORDER BY number")] == promised
