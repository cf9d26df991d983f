"""What was worked out last: the same for the same values, other for others, and never more than fits."""

from __future__ import annotations

import datetime
import weakref
from typing import Any

import pytest

from injector import options
from injector.annotations import settings
from injector.latest import LONGEST, MOST, Latest
from tests import reviews


class Whole:
    """Equal to every other one."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Whole)

    def __hash__(self) -> int:
        return 0


WHOLE = Whole()


def counted(latest: Latest[int], values: object, count: list[int]) -> int:
    """The result of a function that is another at each call."""

    def work() -> int:
        count[0] += 1
        return count[0]

    return latest.of(WHOLE, values, work)


def test_the_same_values_are_worked_out_once() -> None:
    latest, count = Latest[int](), [0]
    assert [counted(latest, {"a": [1, None]}, count) for _ in range(3)] == [1, 1, 1]
    assert counted(latest, {"a": [1, 0]}, count) == 2


def test_another_whole_is_another_thing_even_where_it_is_equal() -> None:
    latest, results = Latest[int](), []
    for number in range(3 * MOST):
        whole = Whole()  # in the place, maybe, of one that is gone
        results.append(latest.of(whole, None, lambda number=number: number))  # type: ignore[misc]
    assert results == [*range(3 * MOST)]


def test_what_may_be_large_is_not_kept_alive() -> None:
    latest, whole = Latest[int](), Whole()
    assert latest.of(whole, None, lambda: 1) == 1
    gone = weakref.ref(whole)
    del whole
    assert gone() is None


def test_few_results_are_kept_and_none_of_large_values() -> None:
    latest, count = Latest[int](), [0]
    for number in range(3 * MOST):
        counted(latest, number, count)
        assert len(latest) <= MOST
    before = len(latest)
    assert [counted(latest, "x" * LONGEST, count) for _ in range(2)] == [3 * MOST + 1, 3 * MOST + 2]
    assert len(latest) == before


def test_a_failure_is_not_kept() -> None:
    latest = Latest[int]()

    def fail() -> int:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            latest.of(WHOLE, 1, fail)
    assert latest.of(WHOLE, 1, lambda: 2) == 2


@pytest.mark.parametrize("value", ["\ud800", 2**70, {(1, 2): 3}, float("inf"), datetime.date(2026, 1, 1), object()])
def test_what_json_can_not_hold_is_worked_out_all_the_same(value: Any) -> None:
    assert Latest[int]().of(WHOLE, {"a": value}, lambda: 1) == 1


def test_many_pods_each_have_their_own_settings_and_containers() -> None:
    pods = [reviews.pod(bucket=f"bucket-{number}", storage=f"{number + 1}Gi") for number in range(MOST + 2)]
    for _ in range(2):
        for number, pod in enumerate(pods):
            text = str(reviews.injected(pod)["spec"])
            assert f"bucket-{number} at" in text
            assert f"'{number + 1}Gi'" in text


def test_pods_that_are_each_given_a_user_share_their_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    read = settings._read

    def counting(*arguments: Any) -> Any:
        reads.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(settings, "_read", counting)
    chosen = options.read({"DEFAULT_RUN_AS_USER": "pod"})
    for _ in range(3):
        assert reviews.response(reviews.pod(bucket="theirs"), options=chosen)["allowed"]
    assert len(reads) == 1


def test_a_mistake_is_told_each_time() -> None:
    pod = reviews.pod(storage="much")
    assert reviews.denied(pod) == reviews.denied(pod)
    assert "storage" in reviews.denied(pod)
