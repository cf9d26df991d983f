"""The whole promise with real parts, step by step: `make demo`.

The recommended example goes through the running webhook; then what the returned Pod says is run, in the
Pod's order, with a real Litestream against a real S3 server. Rows are written, the Pod is deleted the way
Kubernetes deletes it, and made again on empty volumes.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import os
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

from injector import GROUP
from tests import reviews
from tests.podrunner import Node, Run, missing
from tests.podrunner.images import application
from tests.podrunner.s3 import S3, free_ports

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "02-statefulset.yaml"
ROWS = 5  # that are written before the Pod is deleted
COUNT = "import sqlite3; print(sqlite3.connect('/data/app.db').execute('SELECT count(*) FROM ticks').fetchone()[0])"
Object = dict[str, Any]


@contextlib.contextmanager
def webhook() -> Iterator[str]:
    """The webhook as plain `functions-framework --target mutate`: yields its URL."""
    (port,) = free_ports(1)
    command = [
        str(Path(sysconfig.get_path("scripts")) / "functions-framework"),
        "--target",
        "mutate",
        "--port",
        str(port),
    ]
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            yield _ready(f"http://127.0.0.1:{port}", server)
        finally:
            server.terminate()
            server.wait(20)


def _ready(url: str, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            send(url, {"kind": "Other"})
            return url
        time.sleep(0.1)
    raise RuntimeError(f"the webhook did not start on {url} (exit code {server.poll()})")


def send(url: str, body: Object) -> Object | None:
    """POSTs an AdmissionReview; the `response` in the answer, or None if the call was refused."""
    request = urllib.request.Request(f"{url}/mutate?timeout=10s", json.dumps(body).encode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            reply: Object = json.load(answer)["response"]
            return reply
    except urllib.error.HTTPError as refused:
        refused.close()
        return None


def example_pod(endpoint: str) -> Object:
    """The Pod that the example's StatefulSet makes, with the S3 server of this run."""
    stateful_set = next(yaml.safe_load_all(EXAMPLE.read_text()))
    template = copy.deepcopy(stateful_set["spec"]["template"])
    template["metadata"]["annotations"][f"{GROUP}/endpoint"] = endpoint
    name = stateful_set["metadata"]["name"]
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": "1", "controller": True}
    metadata = {**template["metadata"], "name": f"{name}-0", "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def injected(url: str, pod: Object) -> Object:
    """The Pod with the patch that the webhook returns for it."""
    reply = send(url, reviews.review(pod, namespace="litestream-examples"))
    if reply is None or not reply["allowed"]:
        raise RuntimeError(f"the webhook refused the example: {reply}")
    patched: Object = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(reply["patch"])))
    return patched


def demonstrate(tell: Callable[[str], None]) -> tuple[int, int]:
    """Runs it all; returns the rows that the application had when it was deleted and when it was back."""
    tell("starting an S3 server and the webhook")
    with S3() as s3, webhook() as url:
        pod = example_pod(s3.endpoint)
        tell(f"sending Pod {pod['metadata']['name']} of {EXAMPLE.relative_to(ROOT)} to {url}/mutate")
        pod = injected(url, pod)
        containers = [item["name"] for item in pod["spec"]["initContainers"]]
        tell(f"applied the patch: {', '.join(containers)} come before {pod['spec']['containers'][0]['name']}")
        image = pod["spec"]["containers"][0]["image"]
        secret = {"litestream-hook-secret": s3.secret}
        with Node(images={image: application()}, secrets=secret) as node:
            before = _life(node, pod, tell, at_least=ROWS)
            tell(f"the bucket holds {len(s3.list_keys('litestream'))} objects; making the Pod again on empty volumes")
            after = _life(node, pod, tell, at_least=1)
    return before, after


def _life(node: Node, pod: Object, tell: Callable[[str], None], at_least: int) -> int:
    """One life of the Pod; rows when it ended (first life) or began (a later one, by its first log line)."""
    run = node.start(pod, namespace="litestream-examples")
    tell(f"the Pod has started after {run.wait_started():.1f} s")
    run.wait_log("counter", f"{at_least} rows") if at_least > 1 else run.wait_log("counter", " rows")
    first = int(run.logs("counter").split()[0])
    tell(f"its application says: {first} rows to begin with, {_rows(run)} now")
    result = run.delete()
    last = int(run.logs("counter").split()[-2])
    codes = {name: ended.exit_code for name, ended in result.containers.items()}
    tell(f"deleted, application first, Litestream last (exit codes {codes.get('counter')}, "
         f"{codes.get('litestream-hook-replicate')})")  # fmt: skip
    return last if at_least > 1 else first - 1


def _rows(run: Run) -> int:
    return int(run.exec("counter", ["python", "-c", COUNT]).text)


def main() -> int:
    """`python -m tests.demo`; the exit code is 0 if no row was lost."""
    if (why := missing()) is not None:
        print(f"this machine can't run the Pod: {why}", file=sys.stderr)
        return 1
    start = time.monotonic()
    before, after = demonstrate(lambda text: print(f"{time.monotonic() - start:5.1f} s  {text}", flush=True))
    lost = max(0, before - after)  # a last row may be kept that the application had no time to tell of
    print(f"\nrows when the Pod was deleted: {before}\nrows when it was back:         {after}\nlost: {lost}")
    return 0 if lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
