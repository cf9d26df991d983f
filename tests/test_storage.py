"""Where databases live: what the application mounts is mounted the same way, and nothing is hidden without a word."""

from typing import Any

import pytest

from injector.pod import storage, volumes
from tests import reviews

Object = dict[str, Any]
PVC = {"persistentVolumeClaim": {"claimName": "data"}}


def container(*mounts: Object, name: str = "app", **fields: Any) -> Object:
    return {"name": name, "image": "example.com/app:1", "volumeMounts": list(mounts), **fields}


def mount(path: str, name: str = "data", **fields: Any) -> Object:
    return {"name": name, "mountPath": path, **fields}


def pod(*containers: Object, sources: Object | None = None, path: str = "/data/app.db", **annotations: str) -> Object:
    names = dict.fromkeys(each["name"] for item in containers for each in item.get("volumeMounts") or [])
    found = [{"name": name, **(sources or {}).get(name, PVC)} for name in names]
    return reviews.pod({"containers": list(containers), "volumes": found}, path=path, **annotations)


def our_mounts(obj: Object, container: str = "litestream-hook-replicate") -> list[Object]:
    """The mounts of one of our containers, less the config's."""
    spec = reviews.injected(obj)["spec"]
    found = next(item for item in spec["initContainers"] if item["name"] == container)
    return [each for each in found["volumeMounts"] if each["name"] != volumes.CONFIG_VOLUME]


def added(obj: Object) -> list[Object]:
    """The volumes added for databases."""
    found: list[Object] = reviews.injected(obj)["spec"]["volumes"]
    return [each for each in found if each["name"].startswith(volumes.STORAGE_VOLUME)]


@pytest.mark.parametrize("path", ["/data", "/data/", "data", "//data", "/data/.", "/x/../data"])
def test_a_mounted_directory_is_reused_however_it_is_written(path: str) -> None:
    obj = pod(container(mount(path)))
    assert our_mounts(obj) == [mount("/data")]
    assert added(obj) == []


def test_the_longest_parent_is_reused() -> None:
    mounts = [
        mount("/srv", "outer"),
        mount("/srv/app", "inner"),
        mount("/srv/app/data/x", "deeper"),
        mount("/srv/ap", "no"),
    ]
    assert our_mounts(pod(container(*mounts), path="/srv/app/data/a.db")) == [mount("/srv/app", "inner")]


@pytest.mark.parametrize(
    "other", ["/dat", "/database", "/data2", "/data/app.db.d", "/data/sub", "/data/app.db-litestream"]
)
def test_a_directory_that_only_starts_alike_is_not_reused(other: str) -> None:
    obj = pod(container(mount(other)))
    assert our_mounts(obj) == [mount("/data", volumes.STORAGE_VOLUME)]


@pytest.mark.parametrize(
    "fields",
    [{"subPath": "one/two"}, {"subPath": ""}, {"subPath": None, "readOnly": None}, {"readOnly": False}],
    ids=str,
)
def test_the_part_of_a_volume_is_the_applications(fields: Object) -> None:
    expected = {key: value for key, value in fields.items() if key == "subPath" and value}
    assert our_mounts(pod(container(mount("/data", **fields)))) == [mount("/data", **expected)]


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({"readOnly": True}, PVC),
        ({}, {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}),
        ({}, {"nfs": {"server": "s", "path": "/", "readOnly": True}}),
        ({}, {"csi": {"driver": "d", "readOnly": True}}),
        ({}, {"configMap": {"name": "c"}}),
        ({}, {"secret": {"secretName": "c"}}),
        ({}, {"projected": {"sources": []}}),
        ({}, {"downwardAPI": {"items": []}}),
        ({}, {"image": {"reference": "x"}, "emptyDir": None}),
    ],
    ids=str,
)
def test_a_read_only_volume_is_refused(fields: Object, source: Object) -> None:
    found = reviews.denied(pod(container(mount("/data", **fields)), sources={"data": source}))
    assert "read-only" in found["path"]
    assert "mount it writable" in found["path"]


def test_a_container_that_only_reads_does_not_stand_in_the_way() -> None:
    reader = container(mount("/data", readOnly=True), name="reader")
    assert our_mounts(pod(reader, container(mount("/data", subPath="x")))) == [mount("/data", subPath="x")]


@pytest.mark.parametrize(
    "file", ["/data/app.db", "/data/app.db/", "/data/app.db-wal", "/data/app.db-shm", "/data/app.db-journal"]
)
def test_a_mount_at_a_file_of_the_database_is_refused(file: str) -> None:
    found = reviews.denied(pod(container(mount("/data"), mount(file, "file", subPath="app.db"))))
    assert 'mount the directory "/data" instead' in found["path"]


def test_two_containers_with_different_volumes_are_told_apart() -> None:
    obj = pod(container(mount("/data")), container(mount("/data", "other"), name="worker"))
    assert "mount different volumes there (data, other)" in reviews.denied(obj)["path"]
    obj = pod(container(mount("/data")), container(mount("/data", "other"), name="worker"), containers="worker")
    assert our_mounts(obj) == [mount("/data", "other")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (mount("/data"), mount("/data")),
        (mount("/data", subPath="a"), mount("/data/", subPath="a/")),
        (mount("/", subPath="x"), mount("/data", subPath="x/data")),
        (mount("/srv"), mount("/srv/data", subPath="data")),
    ],
    ids=str,
)
def test_two_containers_that_see_the_same_file_are_one(one: Object, other: Object) -> None:
    path = "/srv/data/app.db" if one["mountPath"] == "/srv" else "/data/app.db"
    assert len(our_mounts(pod(container(one), container(other, name="worker"), path=path))) == 1


def test_two_containers_that_see_different_files_of_one_volume_are_told_apart() -> None:
    obj = pod(container(mount("/data", subPath="a")), container(mount("/data", subPath="b"), name="worker"))
    assert "path" in reviews.denied(obj)


def test_each_directory_has_a_volume_and_each_database_its_directory() -> None:
    path = "/a/b/c/1.db,/a/x.db,/a/y.db,/d/z.db,/a/b/2.db"
    obj = pod(container(name="app"), container(name="worker"), path=path, storage="2Gi")
    found = added(obj)
    assert [each["name"] for each in found] == [
        "litestream-hook-storage",
        "litestream-hook-storage-1",
        "litestream-hook-storage-2",
        "litestream-hook-storage-3",
    ]
    assert all(each["emptyDir"] == {"sizeLimit": "2Gi"} for each in found)
    for item in reviews.injected(obj)["spec"]["containers"]:
        paths = [each["mountPath"] for each in item["volumeMounts"]]
        assert sorted(paths) == ["/a", "/a/b", "/a/b/c", "/d"]
        assert paths.index("/a") < paths.index("/a/b") < paths.index("/a/b/c")
    assert our_mounts(obj, "litestream-hook-restore-1") == our_mounts(obj, "litestream-hook-restore-2")


def test_a_nested_directory_can_be_the_applications_and_the_outer_one_ours() -> None:
    obj = pod(container(mount("/data/own")), path="/data/a.db,/data/own/b.db")
    assert our_mounts(obj) == [mount("/data", volumes.STORAGE_VOLUME), mount("/data/own")]
    assert our_mounts(obj, "litestream-hook-restore-1") == [mount("/data/own")]


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": None},
        {"volumes": []},
        {"initContainers": None, "volumes": None},
        {
            "containers": [
                {"name": "app", "image": "a", "volumeMounts": None, "env": None, "ports": None, "command": None}
            ]
        },
    ],
    ids=str,
)
def test_null_lists_are_empty_lists(spec: Object) -> None:
    assert our_mounts(reviews.pod(spec)) == [mount("/mnt", volumes.STORAGE_VOLUME)]


# What would be lost or hidden


@pytest.mark.parametrize(
    "source",
    [{"emptyDir": {}}, {"ephemeral": {"volumeClaimTemplate": {}}}, {"csi": {"driver": "x"}}, {}, {"emptyDir": None}],
    ids=str,
)
def test_without_a_restore_a_volume_must_outlive_the_pod(source: Object) -> None:
    obj = pod(container(mount("/data")), sources={"data": source}, restore="off")
    assert "would start without its rows" in reviews.denied(obj)["restore"]
    assert "restore" in reviews.denied(pod(container(), restore="off"))


@pytest.mark.parametrize("source", [PVC, {"hostPath": {"path": "/x"}}, {**PVC, "emptyDir": None}], ids=str)
def test_without_a_restore_a_lasting_volume_is_enough(source: Object) -> None:
    obj = pod(container(mount("/data")), sources={"data": source}, restore="off")
    names = [item["name"] for item in reviews.injected(obj)["spec"]["initContainers"]]
    assert names == ["litestream-hook-init", "litestream-hook-replicate"]


def test_a_claim_template_of_a_stateful_set_is_a_lasting_volume() -> None:
    template = reviews.pod({"containers": [container(mount("/data", "claimed"))]}, path="/data/app.db", restore="off")
    found = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {"template": {"metadata": template["metadata"], "spec": template["spec"]}},
    }
    assert reviews.warned(found) == ""


@pytest.mark.parametrize(
    ("path", "fields", "hides"),
    [
        ("/app/a.db", {}, True),
        ("/var/www/html/a.db", {}, True),
        ("/data/a.db", {"workingDir": "/data"}, True),
        ("/data/a.db", {"workingDir": "/data/sub"}, True),
        ("/data/a.db", {"command": ["/data/bin/run"]}, True),
        ("/data/a.db", {"workingDir": "/database", "command": ["/app/run", "/data/x"]}, False),
        ("/app/data/a.db", {"workingDir": "/app", "command": ["/app/run"]}, False),
        ("/data/a.db", {"workingDir": None, "command": None}, False),
    ],
)
def test_a_new_volume_over_the_applications_own_files_is_told(path: str, fields: Object, hides: bool) -> None:
    found = reviews.warned(pod(container(**fields), path=path))
    assert ("hides what the image has there" in found) is hides


def test_a_size_that_nothing_needs_is_told() -> None:
    assert "has no effect" in reviews.warned(pod(container(mount("/data")), storage="5Gi"))


@pytest.mark.parametrize(
    "directory", ["/etc", "/usr", "/proc/1", "/sys", "/dev/shm", "/var/run/secrets/x", "/lib64", "/etc/litestream"]
)
def test_a_directory_of_the_system_itself_is_refused_even_where_it_is_mounted(directory: str) -> None:
    obj = pod(container(mount(directory)), path=f"{directory}/app.db")
    assert "lies in " in reviews.denied(obj)["path"]


@pytest.mark.parametrize("directory", ["/etc/headscale", "/usr/local/share/app", "/lib/app"])
def test_an_applications_own_volume_below_a_directory_of_the_system_is_fine(directory: str) -> None:
    path = f"{directory}/app.db"
    assert reviews.response(pod(container(mount(directory)), path=path))["allowed"]
    assert "a new volume would hide the image's files" in reviews.denied(pod(container(), path=path))["path"]


def test_a_path_beside_the_volumes_is_warned_of_with_both() -> None:
    said = reviews.warned(pod(container(mount("/data")), path="/dta/app.db"))
    assert "an empty volume is put at /dta; its volumes are at /data" in said
    assert "empty volume is put" not in reviews.warned(pod(container(mount("/data")), path="/data/app.db"))
    assert "empty volume is put" not in reviews.warned(pod(container(), path="/dta/app.db"))


@pytest.mark.timeout(100)
def test_a_pod_of_many_mounts_and_databases_is_answered() -> None:
    mounts = [mount(f"/data/{number}") for number in range(20_000)]
    path = ",".join(f"/data/{number}/app.db" for number in range(100))
    assert len(our_mounts(pod(container(*mounts), path=path))) == 100


@pytest.mark.timeout(60)
def test_a_small_request_can_not_become_a_pod_of_millions_of_mounts() -> None:
    path = ",".join(f"/{number}/a" for number in range(350))
    many = [{"name": f"c{number}", "image": "x"} for number in range(2_000)]
    assert "are too many" in reviews.denied(reviews.pod({"containers": many}, path=path))["containers"]
    assert reviews.response(reviews.pod({"containers": many}, path=path, containers="c0"))["allowed"]


def test_mounts_are_looked_through_once_for_all_databases_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def look(_: object, mount: Object) -> bool:
        looks.append(mount["mountPath"])
        return False

    monkeypatch.setattr(storage._Search, "_keeps_data", look)
    mounts = [mount(f"/mount/{number}", readOnly=True) for number in range(100)]
    path = ",".join(f"/data/{number}/app.db" for number in range(100))
    assert reviews.response(pod(container(*mounts), path=path))["allowed"]
    assert len(looks) == len(mounts)
