"""No field of a Pod is ignored: what the runner does not implement is named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.podrunner.fields import UnsupportedPod, check


def pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    made = {"name": "c", "image": "busybox", **(container or {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [made], **spec}}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (pod(hostPID=True), "spec.hostPID: True"),
        (pod(activeDeadlineSeconds=5), "spec.activeDeadlineSeconds: not implemented"),
        (pod({"securityContext": {"privileged": True}}), r"spec.containers\[0\].securityContext.privileged: True"),
        (pod({"livenessProbe": {"grpc": {"port": 1}}}), r"spec.containers\[0\].livenessProbe.grpc"),
        (pod({"restartPolicy": "Always"}), r"spec.containers\[0\].restartPolicy"),
        (pod({"volumeMounts": [{"name": "v", "mountPropagation": "Bidirectional"}]}), "mountPropagation"),
        (pod(volumes=[{"name": "v", "nfs": {"server": "s"}}]), r"spec.volumes\[0\].nfs"),
        (pod(volumes=[{"name": "v", "emptyDir": {"medium": "HugePages"}}]), "emptyDir.medium: 'HugePages'"),
        (pod(containers={}), "spec.containers: {} is not a list"),
        (pod(inventedField=1), "spec.inventedField"),
    ],
)
def test_a_field_that_is_not_implemented_is_named(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedPod, match=named):
        check(asked)


def test_all_fields_are_named_together() -> None:
    with pytest.raises(UnsupportedPod, match=r"hostPID.*hostIPC"):
        check(pod(hostPID=True, hostIPC=True))


def test_defaults_that_an_api_server_adds_are_accepted() -> None:
    check(
        pod(
            {
                "imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {},
            },
            dnsPolicy="ClusterFirst",
            restartPolicy="Always",
            schedulerName="default-scheduler",
            securityContext={},
            terminationGracePeriodSeconds=30,
            enableServiceLinks=True,
            preemptionPolicy="PreemptLowerPriority",
            priority=0,
            serviceAccount="default",
            serviceAccountName="default",
            tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        )
    )
