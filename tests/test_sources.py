"""What a volume tells: whether it lasts, can be written, is in memory, and lies on a network."""

from __future__ import annotations

from typing import Any

import pytest

from injector.pod.sources import Source, source_of
from tests import reviews
from tests.test_storage import container, mount, pod

Object = dict[str, Any]


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        ({}, Source("emptyDir")),
        ({"emptyDir": {"medium": "Memory"}}, Source("emptyDir", memory=True)),
        ({"emptyDir": None, "persistentVolumeClaim": {"claimName": "a"}}, Source()),
        ({"persistentVolumeClaim": {"claimName": "a", "readOnly": True}}, Source(read_only=True)),
        ({"csi": {"driver": "efs.csi.aws.com"}}, Source("csi", "efs.csi.aws.com")),
        ({"configMap": {"name": "a"}}, Source(read_only=True)),
        ({"somethingNew": 1}, Source()),
    ],
    ids=str,
)
def test_a_source_is_told_by_its_kind(volume: Object, told: Source) -> None:
    assert source_of({"name": "data", **volume}) == told


@pytest.mark.parametrize(
    "source",
    [
        {"nfs": {"server": "a", "path": "/"}},
        {"azureFile": {"secretName": "a", "shareName": "b"}},
        {"quobyte": {"registry": "a", "volume": "b"}},
        {"flexVolume": {"driver": "fstab/cifs"}},
        *({"csi": {"driver": driver}} for driver in (
            "blob.csi.azure.com", "cephfs.csi.ceph.com", "csi.juicefs.com", "csi.weka.io", "efs.csi.aws.com",
            "file.csi.azure.com", "filestore.csi.storage.gke.io", "fsx.csi.aws.com", "gcsfuse.csi.storage.gke.io",
            "nfs.csi.k8s.io", "openshift-storage.cephfs.csi.ceph.com", "org.democratic-csi.nfs",
            "org.gluster.glusterfs", "rook-ceph.cephfs.csi.ceph.com", "ru.yandex.s3.csi", "s3.csi.aws.com",
            "seaweedfs-csi-driver", "smb.csi.k8s.io",
        )),
    ],
    ids=lambda source: str(next(iter(source.values())).get("driver", next(iter(source)))),
)  # fmt: skip
def test_a_network_file_system_under_a_database_is_warned_of(source: Object) -> None:
    obj = pod(container(mount("/data")), path="/data/app.db")
    obj["spec"]["volumes"] = [{"name": obj["spec"]["containers"][0]["volumeMounts"][0]["name"], **source}]
    assert "WAL does not work over a network file system" in reviews.warned(obj)


@pytest.mark.parametrize(
    "source",
    [
        {"persistentVolumeClaim": {"claimName": "a"}},
        {"rbd": {"monitors": ["a"], "image": "b"}},
        *({"csi": {"driver": driver}} for driver in ("ebs.csi.aws.com", "pd.csi.storage.gke.io", "disk.csi.azure.com")),
        {"csi": {"driver": None}},
    ],
    ids=range(6),
)
def test_a_block_device_and_a_claim_are_not_warned_of(source: Object) -> None:
    obj = pod(container(mount("/data")), path="/data/app.db")
    obj["spec"]["volumes"] = [{"name": obj["spec"]["containers"][0]["volumeMounts"][0]["name"], **source}]
    assert "network file system" not in reviews.warned(obj)
