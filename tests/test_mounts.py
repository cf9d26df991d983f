"""Paths of mounts as a kubelet takes them, and the mount that a database lies in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from injector.pod import mounts
from tests.test_storage import container, mount

if TYPE_CHECKING:
    from injector.pod.shapes import Container, VolumeMount

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("/data", "/data"),
        ("/data/", "/data"),
        ("data", "/data"),
        ("./data", "/data"),
        ("//data//", "/data"),
        ("/data/.", "/data"),
        ("/x/../data", "/data"),
        ("/../data", "/data"),
        ("/", "/"),
        ("", "/"),
        (".", "/"),
        ("///", "/"),
    ],
)
def test_a_mount_path_is_taken_as_a_kubelet_takes_it(written: str, normal: str) -> None:
    assert mounts.absolute(written) == normal


def test_parents_are_mounted_before_what_lies_inside_them() -> None:
    paths = ["/a/b/c", "/", "b", "/a", "//a/b/"]
    found: list[VolumeMount] = [{"name": "data", "mountPath": path} for path in paths]
    assert [each["mountPath"] for each in mounts.outer_first(found)] == ["/", "b", "/a", "//a/b/", "/a/b/c"]


def test_a_database_is_held_by_who_writes_there_and_else_by_who_reads() -> None:
    def user(name: str, **fields: Any) -> Container:
        found: Container = container(mount("/data", **fields), name=name)  # type: ignore[assignment]
        return found

    reader, writer = user("reader", readOnly=True), user("writer")
    other: Container = container(mount("/other"), mount("/data", "litestream-hook-storage"), name="x")  # type: ignore[assignment]
    assert mounts.holding([reader, writer, other], ["/data/app.db"]) == [writer]
    assert mounts.holding([reader, other], ["/data/app.db"]) == [reader]
    assert mounts.holding([other], ["/data/app.db"]) == []
