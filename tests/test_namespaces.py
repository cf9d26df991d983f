"""Annotations of Namespaces: asked for once in some seconds, and an API that does not answer is told in words."""

import asyncio
from typing import Any

import pytest

from injector import GROUP
from injector.cluster import namespaces
from injector.cluster.client import ClusterError
from injector.cluster.namespaces import KEPT, Namespaces


class Api:
    """Stands in for the cluster's API: the answers, and how often it was asked."""

    def __init__(self, **annotations: str) -> None:
        self.found: dict[str, Any] | None = {"metadata": {"annotations": annotations}}
        self.asked: list[str] = []
        self.error: ClusterError | None = None
        self.silent = False

    async def get_namespace(self, name: str) -> dict[str, Any] | None:
        self.asked.append(name)
        await asyncio.sleep(3600 if self.silent else 0)
        if self.error is not None:
            raise self.error
        return self.found


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def make(api: Api) -> tuple[Namespaces, Clock]:
    clock = Clock()
    return Namespaces(api, GROUP, clock), clock


def test_only_annotations_of_our_group_count() -> None:
    found, _ = make(Api(**{f"{GROUP}/bucket": "shop", "example.com/bucket": "theirs", "bucket": "nobody's"}))
    assert asyncio.run(found.annotations("shop")) == {"bucket": "shop"}


@pytest.mark.parametrize("found", [None, {}, {"metadata": {}}, {"metadata": {"annotations": None}}])
def test_a_namespace_without_any_has_none(found: Any) -> None:
    api = Api()
    api.found = found
    assert asyncio.run(make(api)[0].annotations("shop")) == {}


def test_an_answer_is_kept_for_some_seconds_and_no_longer() -> None:
    api = Api()
    found, clock = make(api)

    async def main() -> None:
        for _ in range(3):
            await found.annotations("shop")
        assert api.asked == ["shop"]
        await found.annotations("other")
        clock.seconds = KEPT
        await found.annotations("shop")
        assert api.asked == ["shop", "other", "shop"]

    asyncio.run(main())


def test_many_pods_at_once_ask_once() -> None:
    api = Api()
    found, _ = make(api)

    async def main() -> None:
        await asyncio.gather(*(found.annotations("shop") for _ in range(50)))
        assert api.asked == ["shop"]

    asyncio.run(main())


def test_a_caller_that_leaves_takes_nothing_from_the_others() -> None:
    api = Api(**{f"{GROUP}/bucket": "shop"})
    found, _ = make(api)

    async def main() -> None:
        first = asyncio.create_task(found.annotations("shop"))
        second = asyncio.create_task(found.annotations("shop"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == {"bucket": "shop"}

    asyncio.run(main())


def test_an_error_is_for_all_who_asked_and_is_not_kept() -> None:
    api = Api()
    api.error = ClusterError("no")
    found, _ = make(api)

    async def main() -> None:
        results = await asyncio.gather(*(found.annotations("shop") for _ in range(3)), return_exceptions=True)
        assert results == [api.error] * 3
        api.error = None
        assert await found.annotations("shop") == {}

    asyncio.run(main())


def test_a_silent_api_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "PATIENCE", 0.01)
    api = Api()
    api.silent = True
    with pytest.raises(ClusterError, match=r"did not answer within 0\.01 s"):
        asyncio.run(make(api)[0].annotations("shop"))


def test_what_is_kept_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "MOST_KEPT", 2)
    found, _ = make(Api())

    async def main() -> None:
        for number in range(10):
            await found.annotations(str(number))
        assert len(found._kept) <= 2

    asyncio.run(main())
