"""The core alone: each step of an admission, and the costliest requests of 3 MiB that we know of."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonpatch

from injector import GROUP, options
from injector.admission import review, webhook
from injector.annotations import settings
from injector.annotations.findings import Findings
from injector.pod import inject, patch, replica, shapes
from tests import costly, reviews
from tests.bench.page import Table, spread, told

OPTIONS = options.read({})
ROUNDS, CALLS = 15, 100
LARGEST_OBJECT, MOST_SECONDS, SHOWN = 3 * 2**20, 0.3, 12
Object = dict[str, Any]
Steps = Mapping[str, Callable[[], object]]


def pod(size: int) -> Object:
    """An annotated Pod whose AdmissionReview has about `size` bytes: environment and containers make the weight."""
    keys = {f"{GROUP}/inject": "true", f"{GROUP}/path": "/data/app.db", f"{GROUP}/endpoint": "http://minio:9000"}
    container: Object = {"name": "app", "image": "example.com/app:1", "securityContext": {"runAsUser": 1000}, "env": []}
    made: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": keys, "labels": {"app": "web"}},
        "spec": {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]},
    }
    while len(json.dumps(reviews.review(made))) < size:
        number = len(container["env"])
        container["env"].append({"name": f"VARIABLE_{number}", "value": f"value of variable {number}"})
        if number % 40 == 39:
            container = {**container, "name": f"app-{number}", "env": []}
            made["spec"]["containers"].append(container)
    return made


def bodies() -> dict[str, bytes]:
    """The reviews that all is measured with."""
    small, large = pod(6_000), pod(60_000)
    other = copy.deepcopy(small)
    del other["metadata"]["annotations"]
    made = {"6 KB, injected": small, "60 KB, injected": large, "6 KB, not annotated": other}
    return {what: json.dumps(reviews.review(found)).encode() for what, found in made.items()}


def measured() -> Iterator[Table]:
    """Each table, as soon as it is measured."""
    yield steps()
    yield worst()


def steps() -> Table:
    """Microseconds of CPU of each step, by the kind of review."""
    made = {what: _steps(body) for what, body in bodies().items()}
    found: dict[tuple[str, str], list[float]] = {}
    gc.collect()
    for _ in told(range(ROUNDS), "rounds of steps"):
        for what, calls in made.items():
            for step, call in calls.items():
                count = CALLS if step != COMPARED else 3
                start = time.process_time()
                for _ in range(count):
                    call()
                found.setdefault((step, what), []).append((time.process_time() - start) / count * 1e6)
    names = next(iter(made.values()))
    rows = [(step, *(spread(found[step, what]) if (step, what) in found else "" for what in made)) for step in names]
    return Table(
        "The core by step",
        "Microseconds of CPU in one process, without a server. The last line is what comparing whole Pods would cost.",
        ("step", *made),
        rows,
    )


COMPARED = "`jsonpatch.make_patch`"


def _steps(body: bytes) -> Steps:
    request = review.read(body)
    found, own = request["object"] or {}, settings.ours((request["object"] or {}).get("metadata"), GROUP)
    whole = {"whole": lambda: _answer(body), "read JSON": lambda: review.read(body)}
    if not own:
        return whole
    identity = replica.of_pod(found, "default")
    after = inject.inject(found, identity, OPTIONS).pod
    operations = patch.diff(found, after)
    again = json.dumps(reviews.review(after)).encode()
    return {
        **whole,
        "check shapes": lambda: shapes.wrong(found, shapes.Pod),
        "read annotations": lambda: settings.read(own, OPTIONS, Findings(GROUP)),
        "inject, annotations included": lambda: inject.inject(found, identity, OPTIONS),
        "find the patch": lambda: patch.diff(found, after),
        "write the answer": lambda: review.patched("1", operations, [], {}),
        "whole, second call": lambda: _answer(again),
        COMPARED: lambda: jsonpatch.make_patch(found, after),
    }


def _answer(body: bytes) -> None:
    """One admission. There is nothing that it waits for."""
    try:
        webhook.answer("POST", "/mutate", body, OPTIONS).send(None)
    except StopIteration:
        return
    raise AssertionError


def worst() -> Table:
    """Seconds of CPU (the least of three runs) of the costliest shapes."""
    found = []
    for name, shape in told(list(costly.SHAPES.items()), "costly shapes"):
        body, seconds = costly.sized(shape, LARGEST_OBJECT), []
        for _ in range(3):
            gc.collect()
            start = time.process_time()
            asyncio.run(webhook.answer("POST", "/mutate", body, OPTIONS))
            seconds.append(time.process_time() - start)
        found.append((min(seconds), len(body), name))
    found.sort(reverse=True)
    rows = [
        (name, f"{length:,}", f"{seconds:.3f}{' TOO MUCH' if seconds > MOST_SECONDS else ''}")
        for seconds, length, name in found[:SHOWN]
    ]
    return Table(
        "The costliest requests that are known",
        f"The worst of {len(found)} shapes (`tests/costly.py`), each as large as it can be: seconds of CPU.",
        ("shape", "bytes", "s"),
        rows,
    )
