"""The variables that a subPathExpr refers to: all of them, in their order, and each once."""

from __future__ import annotations

from typing import Any

import pytest

from injector.pod import variables as looked_up
from tests import reviews
from tests.test_storage import container, mount, our_mounts, pod

Object = dict[str, Any]


def variables(obj: Object, container: str = "litestream-hook-replicate") -> Object:
    spec = reviews.injected(obj)["spec"]
    found = next(item for item in spec["initContainers"] if item["name"] == container)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in found["env"]}


NAME = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


def test_a_sub_path_expression_brings_its_variables_with_all_they_refer_to() -> None:
    env = [
        NAME,
        {"name": "BASE", "value": "db-$(POD)"},
        {"name": "OTHER", "value": "$(SECRET)"},
        {"name": "DIR", "value": "$(BASE)/x"},
    ]
    obj = pod(container(mount("/data", subPathExpr="$(DIR)/y"), env=env))
    assert our_mounts(obj) == [mount("/data", subPathExpr="$(DIR)/y")]
    for name in ("litestream-hook-init", "litestream-hook-restore-0", "litestream-hook-replicate"):
        found = variables(obj, name)
        assert [key for key in found if key in {"POD", "BASE", "DIR", "OTHER"}] == ["POD", "BASE", "DIR"]
        assert found["POD"] == NAME["valueFrom"]


@pytest.mark.parametrize("env", [None, [], [{"name": "DIR", "value": "$(POD)"}]])
def test_a_variable_that_is_not_in_the_env_is_named(env: Any) -> None:
    obj = pod(container(mount("/data", subPathExpr="$(DIR)"), env=env, envFrom=[{"configMapRef": {"name": "c"}}]))
    assert f"variable {'POD' if env else 'DIR'} is not in its env" in reviews.denied(obj)["path"]


def test_an_escaped_dollar_is_no_variable() -> None:
    obj = pod(container(mount("/data", subPathExpr="$$(DIR)/a")))
    assert our_mounts(obj) == [mount("/data", subPathExpr="$$(DIR)/a")]


def test_variables_that_refer_to_each_other_end() -> None:
    env = [{"name": "A", "value": "$(B)"}, {"name": "B", "value": "$(A)"}]
    assert {"A", "B"} <= set(variables(pod(container(mount("/data", subPathExpr="$(A)"), env=env))))


def test_one_variable_with_two_values_is_refused_instead_of_mounting_the_wrong_directory() -> None:
    one = container(mount("/a", "one", subPathExpr="$(DIR)"), env=[{"name": "DIR", "value": "first"}])
    other = container(mount("/b", "two", subPathExpr="$(DIR)"), env=[{"name": "DIR", "value": "second"}], name="worker")
    obj = pod(one, other, path="/a/x.db,/b/x.db")
    assert "give the variables different names" in reviews.denied(obj)["path"]
    other["env"] = [{"name": "DIR", "value": "first"}]
    assert variables(obj)["DIR"] == "first"


def test_two_containers_whose_variables_differ_further_down_are_told_apart() -> None:
    def user(name: str, base: str) -> Object:
        env = [{"name": "BASE", "value": base}, {"name": "DIR", "value": "$(BASE)/x"}]
        return container(mount("/data", subPathExpr="$(DIR)"), env=env, name=name)

    assert "path" in reviews.denied(pod(user("app", "a"), user("worker", "b")))
    assert len(our_mounts(pod(user("app", "a"), user("worker", "a")))) == 1


@pytest.mark.timeout(60)
def test_thousands_of_variables_are_copied_in_linear_time() -> None:
    env = [{"name": f"E{number}", "value": f"$(E{number - 1})" if number else "x"} for number in range(20_000)]
    obj = pod(container(mount("/data", subPathExpr="$(E19999)"), env=env))
    assert len(variables(obj)) > 20_000


def test_variables_of_all_databases_together_are_followed_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 databases that each lead through one long chain of variables."""
    looks: list[str] = []
    referred = looked_up._referred

    def look(text: str) -> list[str]:
        looks.append(text)
        return referred(text)

    monkeypatch.setattr(looked_up, "_referred", look)
    env = [{"name": f"V{number}", "value": f"$(V{number - 1})"} for number in range(1, 2000)]
    env.insert(0, {"name": "V0", "value": "x"})
    mounts = [mount(f"/d{number}", subPathExpr=f"$(V1999)/{number}") for number in range(500)]
    paths = ",".join(f"/d{number}/a.db" for number in range(500))
    obj = pod(container(*mounts, env=env), path=paths)
    assert "too many variables" in reviews.denied(obj)["path"]
    assert len(looks) <= looked_up.MOST_VARIABLES + 2 * 500
