"""A Pod as Velero creates it again from a backup, before the workload that it is of.

Imitated, as its restore actions have it: status, owner and everything of the metadata but name, namespace, labels and
annotations are left out, its own labels come in, no node and no priority; an init container stands in front of all
others where it restores files (Velero's pkg/restore/restore.go, and pod_action.go and pod_volume_restore_action.go in
its actions).
"""

import copy
from typing import Any

KEPT = ("name", "namespace", "labels", "annotations")
WAIT = "restore-wait"


def restored(stored: dict[str, Any], files: str | None = None) -> dict[str, Any]:
    """The Pod that Velero makes of a stored one; `files` is a volume whose files it restores."""
    pod = copy.deepcopy({key: value for key, value in stored.items() if key != "status"})
    metadata = {key: pod["metadata"][key] for key in KEPT if key in pod["metadata"]}
    labels = {"velero.io/backup-name": "daily", "velero.io/restore-name": "daily-20260101"}
    pod["metadata"] = metadata | {"labels": {**(metadata.get("labels") or {}), **labels}}
    for key in ("nodeName", "priority"):
        pod["spec"].pop(key, None)
    if files is not None:
        wait = {"name": WAIT, "image": "velero/velero:v1.16.0", "command": ["/velero-restore-helper"]}
        mounts = [{"name": files, "mountPath": f"/restores/{files}"}]
        pod["spec"]["initContainers"].insert(0, {**wait, "args": ["1"], "volumeMounts": mounts})
    return pod
