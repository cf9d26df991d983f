"""Speed of one admission, bytes in, bytes out, and the costliest requests of 3 MiB that we know of: `make bench`."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import jsonpatch

from injector import GROUP, options
from injector.admission import webhook
from tests import costly, reviews

OPTIONS = options.read({})
ROUNDS, CALLS = 15, 200
LARGEST_OBJECT, MOST_SECONDS, SHOWN = 3 * 2**20, 0.3, 12
Object = dict[str, Any]


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


def microseconds(function: Callable[[], object], calls: int) -> float:
    """Time of one call."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls * 1e6


def measure(size: int, loop: asyncio.AbstractEventLoop) -> tuple[int, list[float], float]:
    """Bytes of the review; microseconds of a first call, a second, one not ours, and make_patch; peak KiB."""
    made = pod(size)
    after = reviews.injected(made)
    other = copy.deepcopy(made)
    del other["metadata"]["annotations"]
    bodies = [json.dumps(reviews.review(obj)).encode() for obj in (made, after, other)]

    def answer(body: bytes) -> webhook.Answer:
        return loop.run_until_complete(webhook.answer("POST", "/mutate", body, OPTIONS))

    # What waiting for an answer costs in itself is not the admission's.
    idle = min(microseconds(lambda: loop.run_until_complete(asyncio.sleep(0)), CALLS) for _ in range(5))
    rounds: list[list[float]] = []
    gc.collect()
    for _ in range(ROUNDS):
        times = [microseconds(functools.partial(answer, body), CALLS) - idle for body in bodies]
        times.append(microseconds(lambda: jsonpatch.make_patch(made, after), 5))
        rounds.append(times)
    tracemalloc.start()
    answer(bodies[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return len(bodies[0]), [statistics.median(times) for times in zip(*rounds, strict=True)], peak / 1024


def worst(loop: asyncio.AbstractEventLoop) -> list[tuple[float, str, int]]:
    """Seconds of CPU (the least of three runs), name and bytes of every costly shape, the worst first."""
    found = []
    for name, shape in costly.SHAPES.items():
        body, seconds = costly.sized(shape, LARGEST_OBJECT), []
        for _ in range(3):
            gc.collect()
            start = time.process_time()
            loop.run_until_complete(webhook.answer("POST", "/mutate", body, OPTIONS))
            seconds.append(time.process_time() - start)
        found.append((min(seconds), name, len(body)))
    return sorted(found, reverse=True)


def main() -> None:
    print("one admission of an annotated Pod, one core; medians of interleaved rounds\n")
    heads = ("AdmissionReview", "first call", "second call", "not ours", "make_patch", "ratio", "peak")
    print(" ".join(f"{head:>{width}}" for head, width in zip(heads, (16, 11, 12, 9, 11, 6, 9), strict=True)))
    loop = asyncio.new_event_loop()
    for size in (6_000, 60_000):
        length, (first, second, unasked, compared), peak = measure(size, loop)
        print(
            f"{length:>14} B {first:>8.0f} µs {second:>9.0f} µs {unasked:>6.0f} µs {compared:>8.0f} µs "
            f"{compared / first:>5.1f}x {peak:>5.0f} KiB"
        )
    found = worst(loop)
    print(f"\nthe costliest of {len(found)} shapes of a request (tests/costly.py), as large as they can be")
    for seconds, name, length in found[:SHOWN]:
        print(f"{length:>14} B {seconds:>9.3f} s  {name}{'  <-- TOO MUCH' if seconds > MOST_SECONDS else ''}")
    loop.close()


if __name__ == "__main__":
    main()
