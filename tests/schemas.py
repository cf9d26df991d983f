"""Kubernetes' own schemas: strict validation for every release from 1.30 on that kubernetes-validate has."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import referencing

_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_MINORS = {int(folder.name.split(".")[1].split("-")[0]) for folder in _SCHEMAS.glob("v1.*-local-strict")}
RELEASES = [f"1.{minor}" for minor in sorted(_MINORS) if minor >= 30]
# The oldest and the newest at once, those between with the slow tests.
IN_TURN = [pytest.param(each, marks=[pytest.mark.slow] if each in RELEASES[1:-1] else []) for each in RELEASES]


@functools.cache
def _validator(release: str, kind: str, api_version: str) -> jsonschema.protocols.Validator:
    """A validator that is kept: the package itself reads its files anew for every object."""
    folder = next(_SCHEMAS.glob(f"v{release}*-local-strict"))
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema, definitions = (
        referencing.Resource.from_contents(json.loads((folder / file).read_bytes()))
        for file in (f"{kind.lower()}-{name}.json", "_definitions.json")
    )
    registry: Any = definitions @ (schema @ referencing.Registry())
    return jsonschema.Draft202012Validator(schema.contents, registry=registry)


def problems(obj: dict[str, Any], release: str) -> Iterator[str]:
    """What the schema of one release has against an object: unknown, missing and wrongly typed fields."""
    for error in _validator(release, obj["kind"], obj["apiVersion"]).iter_errors(obj):
        yield f"{release}: {'.'.join(map(str, error.path))}: {error.message[:300]}"


def fields(release: str, definition: str) -> set[str]:
    """The fields of one of Kubernetes' types in one release, by the end of its name, such as `v1.ObjectMeta`."""
    folder = next(_SCHEMAS.glob(f"v{release}*-local-strict"))
    types = json.loads((folder / "_definitions.json").read_bytes())["$defs"]
    (one,) = (types[name] for name in types if name.endswith(f".{definition}"))
    return set(one["properties"])
