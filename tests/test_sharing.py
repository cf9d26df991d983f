"""Two objects of one call that write one replica are told, also in two namespaces, where each alone is right."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import GROUP, cli
from tests import reviews

Object = dict[str, Any]
FIXED = "fixed/{database}"


def pod(name: str, namespace: str, **annotations: str) -> Object:
    return reviews.pod({}, {"name": name, "namespace": namespace}, **annotations)


def owned(obj: Object) -> Object:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "1", "controller": True}
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [owner]}}


def said(objects: list[Object], command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    files = []
    for number, obj in enumerate(objects):
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(obj))
    code = cli.main([command, *map(str, files)])
    captured = capsys.readouterr()
    return code, captured.out if command == "check" else captured.err


@pytest.mark.parametrize("command", ["check", "inject"])
@pytest.mark.parametrize("namespace", ["a", "b"])
def test_a_second_writer_of_one_replica_is_told_who_the_first_is(
    namespace: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [pod("one", "a", replica_path=FIXED), pod("two", namespace, replica_path=FIXED)]
    code, text = said(objects, command, tmp_path, capsys)
    assert code == 1
    assert (
        f'Pod {namespace}/two: {GROUP}/replica-path: "fixed/mnt/litestream.db": is the replica of Pod a/one too' in text
    )
    objects[1] = pod("two", namespace, replica_path="{namespace}/{kind}/{workload}/{database}")
    assert said(objects, command, tmp_path, capsys)[0] == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"bucket": "shared"}, {"bucket": "s3://shared", "endpoint": "https://s3.eu-west-1.amazonaws.com/"}),
        ({"bucket": "gs://shared"}, {"bucket": "shared", "endpoint": "https://storage.googleapis.com"}),
        ({"endpoint": "http://minio:9000"}, {"endpoint": "http://MINIO:9000/"}),
    ],
    ids=["amazon", "google", "spelling"],
)
def test_one_replica_is_one_however_its_place_is_written(
    one: dict[str, str], other: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [pod("one", "a", replica_path=FIXED, **one), pod("two", "a", replica_path=FIXED, **other)]
    code, text = said(objects, "check", tmp_path, capsys)
    assert code == 1
    assert "is the replica of Pod a/one too" in text


@pytest.mark.parametrize(
    "objects",
    [
        [pod("one", "a"), pod("one", "b"), pod("two", "a")],
        [pod("one", "a", replica_path=FIXED), pod("one", "a", replica_path=FIXED)],
        [pod("one", "a", replica_path=FIXED), pod("two", "a", replica_path=FIXED, bucket="other")],
        [pod("one", "a", replica_path=FIXED), pod("two", "a", replica_path=FIXED, endpoint="http://minio:9000")],
        [pod("one", "a", replica_path=FIXED), pod("two", "a", replica_path=FIXED, single_writer="off")],
        [pod("web", "a", replica_path=FIXED), owned(pod("web-0", "a", replica_path=FIXED))],
    ],
    ids=["apart", "twice", "bucket", "endpoint", "softened", "owned"],
)
def test_one_writer_for_each_replica_is_fine(
    objects: list[Object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(objects, "check", tmp_path, capsys) == (0, "")


def test_a_slash_at_the_end_of_an_endpoint_makes_no_other_replica(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ("http://minio:9000", "http://minio:9000/")
    objects = [pod(f"p{number}", "a", replica_path=FIXED, endpoint=end) for number, end in enumerate(ends)]
    assert said(objects, "check", tmp_path, capsys)[0] == 1
