"""The order of containers: restored before anyone writes, and stopped after everyone but the proxy."""

from typing import Any

import pytest

from tests import reviews

Object = dict[str, Any]
OURS = [f"litestream-hook-{name}" for name in ("init", "restore-0", "replicate")]


def once(name: str, **fields: Any) -> Object:
    return {"name": name, "image": "example.com/x:1", **fields}


def native(name: str, **fields: Any) -> Object:
    return once(name, restartPolicy="Always", **fields)


def pod(*init: Object, **annotations: str) -> Object:
    return reviews.pod({"initContainers": list(init), "containers": [once("app")]}, path="/data/app.db", **annotations)


def names(obj: Object) -> list[str]:
    """The init containers, with `*` for ours in their own order."""
    found = [item["name"] for item in obj["spec"]["initContainers"]]
    start = found.index(OURS[0])
    ours = [name for name in found if name.startswith("litestream-hook-")]
    assert found[start : start + len(ours)] == ours
    assert [name for name in OURS if name in ours] == [name for name in ours if name in OURS]
    assert OURS[0] == ours[0]
    assert "litestream-hook-replicate" in ours
    return [*found[:start], "*", *found[start + len(ours) :]]


def order(obj: Object) -> list[str]:
    """The order after a first call; a second one must not change it."""
    after = reviews.injected(obj)
    assert reviews.injected(after) == after
    return names(after)


ISTIO = [once("istio-init"), native("istio-proxy")]


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ([], ["*"]),
        ([once("migrate")], ["*", "migrate"]),
        ([native("agent"), once("migrate")], ["agent", "*", "migrate"]),
        ([native("a"), native("b")], ["a", "b", "*"]),
        ([once("migrate"), native("agent")], ["*", "migrate", "agent"]),
        (ISTIO, ["istio-init", "istio-proxy", "*"]),
        ([*ISTIO, once("migrate")], ["istio-init", "istio-proxy", "*", "migrate"]),
        ([once("validate"), *ISTIO, native("agent")], ["validate", "istio-init", "istio-proxy", "*", "agent"]),
        ([native("linkerd-proxy"), once("migrate")], ["linkerd-proxy", "*", "migrate"]),
        ([once("linkerd-init"), once("linkerd-proxy")], ["*", "linkerd-init", "linkerd-proxy"]),
        ([native("istio-proxy"), once("x"), native("linkerd-proxy")], ["istio-proxy", "x", "linkerd-proxy", "*"]),
        ([once("a", restartPolicy=None), native("b")], ["*", "a", "b"]),
        ([once("a", restartPolicy="OnFailure")], ["*", "a"]),
    ],
    ids=str,
)
def test_leading_sidecars_and_proxies_stay_in_front(init: list[Object], expected: list[str]) -> None:
    assert order(pod(*init)) == expected


def test_init_first_false_goes_behind_the_pods_own() -> None:
    assert order(pod(once("a"), native("b"), once("c"), init_first="false")) == ["a", "b", "c", "*"]


def test_an_init_container_that_is_a_target_follows_its_restore() -> None:
    assert order(pod(native("writer"), once("migrate"), containers="app,writer")) == ["*", "writer", "migrate"]
    assert order(pod(native("agent"), native("writer"), containers="writer")) == ["agent", "*", "writer"]


def test_a_target_before_the_restore_is_refused() -> None:
    found = reviews.denied(pod(once("migrate"), init_first="false", containers="app,migrate"))
    assert "would run before they are restored" in found["init-first"]


def with_volume(obj: Object) -> Object:
    """The application, and whoever is called a user, mounts one volume."""
    mount = [{"name": "data", "mountPath": "/data"}]
    obj["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    for item in [*obj["spec"]["containers"], *obj["spec"]["initContainers"]]:
        if item["name"] in ("app", "user"):
            item["volumeMounts"] = mount
    return obj


def test_a_leading_sidecar_that_mounts_the_database_follows_its_restore() -> None:
    assert order(with_volume(pod(native("agent"), native("user")))) == ["agent", "*", "user"]


def test_a_user_of_the_database_before_the_proxy_goes_behind_the_restore_with_a_warning() -> None:
    obj = with_volume(pod(once("user"), *ISTIO))
    assert "its final sync has no proxy" in reviews.warned(obj)
    assert order(obj) == ["*", "user", "istio-init", "istio-proxy"]


def test_a_proxy_as_an_ordinary_container_is_told() -> None:
    obj = pod()
    obj["spec"]["containers"].append(once("istio-proxy"))
    assert "run it as a native sidecar" in reviews.warned(obj)
    assert order(obj) == ["*"]


def between(obj: Object, change: Any) -> Object:
    """The Pod after a first call, a change by another webhook, and a second call; a third changes nothing."""
    first = reviews.injected(obj)
    change(first["spec"]["initContainers"])
    second = reviews.injected(first)
    assert reviews.injected(second) == second
    return second


def test_a_proxy_that_is_appended_between_two_calls_comes_in_front() -> None:
    after = between(pod(once("migrate")), lambda init: init.append(native("istio-proxy")))
    assert names(after)[-1] == "*"
    assert set(names(after)) == {"migrate", "istio-proxy", "*"}


def test_a_proxy_that_is_put_in_front_between_two_calls_stays_there() -> None:
    after = between(
        pod(once("migrate")), lambda init: init.__setitem__(slice(0, 0), [once("istio-init"), native("istio-proxy")])
    )
    assert names(after) == ["istio-init", "istio-proxy", "*", "migrate"]


def test_what_another_webhook_puts_in_front_stays_there() -> None:
    assert names(between(pod(once("migrate")), lambda init: init.insert(0, once("vault")))) == ["vault", "*", "migrate"]
    assert names(between(pod(), lambda init: init.append(once("vault")))) == ["*", "vault"]


@pytest.mark.parametrize(
    "change", [lambda init: init.reverse(), lambda init: init.insert(0, init.pop())], ids=["reverse", "rotate"]
)
def test_ours_are_put_back_into_their_order(change: Any) -> None:
    after = between(pod(once("a"), once("b")), change)
    assert sorted(names(after)) == ["*", "a", "b"]


def test_a_target_that_was_moved_in_front_follows_its_restore_again() -> None:
    after = between(pod(once("migrate"), containers="app,migrate"), lambda init: init.insert(0, init.pop()))
    assert names(after) == ["*", "migrate"]


def test_fields_that_others_set_in_ours_survive_a_new_order() -> None:
    def change(init: list[Object]) -> None:
        for item in init:
            item["imagePullPolicy"] = "Always"
        init.append(native("istio-proxy"))

    after = between(pod(), change)
    ours = [item for item in after["spec"]["initContainers"] if item["name"].startswith("litestream-hook-")]
    assert [item.get("imagePullPolicy") for item in ours] == ["Always"] * len(OURS)


def test_an_image_that_was_rewritten_to_a_mirror_is_kept() -> None:
    def change(init: list[Object]) -> None:
        for item in init:
            item["image"] = f"mirror.example.com/{item['image']}"

    after = between(pod(), change)
    assert all(item["image"].startswith("mirror.example.com/") for item in after["spec"]["initContainers"])


@pytest.mark.timeout(100)
def test_a_pod_of_many_containers_is_answered() -> None:
    """Anything that compares all with all takes minutes here."""
    many = [once(f"c{number}") for number in range(1_900)]
    obj = reviews.pod({"containers": many})
    assert len(reviews.operations(reviews.response(obj))) >= 1_900
    after = reviews.injected(reviews.pod({"initContainers": many, "containers": [once("app")]}))
    assert reviews.injected(after) == after
