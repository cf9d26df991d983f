"""Input that nobody thought of: reviews, annotations and PEM files, made up and from the corpus.

`make fuzz` makes up far more of them (FUZZ_EXAMPLES). What once failed belongs into tests/corpus, which every run
replays.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from injector import GROUP, options
from injector.admission import webhook
from injector.annotations.table import ANNOTATIONS
from injector.errors import quoted
from injector.tls import BadCertificate, certificate, context
from tests.running import review, write_pair

pytestmark = pytest.mark.slow
CORPUS = Path(__file__).parent / "corpus"
OPTIONS = options.read({})
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

scalars: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
)
# Values that are nearly right find more than values that are not.
pieces = st.sampled_from(
    [
        "/data/app.db",
        "/data/../x",
        "true",
        "-1",
        "1Gi",
        "12h",
        "{pod}",
        "{node}",
        "http://minio:9000",
        "s3",
        "0.5",
        *list(",/$ "),
        "",
        "\n",
        "\x00",
        "é",
    ]
)
texts = st.lists(pieces | st.text(max_size=6), max_size=4).map("".join)
keys = st.sampled_from([annotation.key for annotation in ANNOTATIONS] + ["status", "injekt", ""])
sound = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(["/data/app.db", "/data/app.db,/data/b/c.db", "/srv/x/y.sqlite,/data/app.db"]),
        "endpoint": st.sampled_from(["http://minio:9000", "https://s3.example.com"]),
        "auth": st.sampled_from(["secret", "ambient"]),
        "replica-path": st.sampled_from(["{namespace}/{pod}/{database}", "own/{database}"]),
        "litestream-version": st.sampled_from(["0.3", "0.5"]),
        "sidecar": st.sampled_from(["native", "container"]),
        "init-first": st.sampled_from(["true", "false"]),
        "restore": st.sampled_from(["if-exists", "required"]),
        "integrity-check": st.sampled_from(["none", "quick", "full"]),
        "memory-limit": st.sampled_from(["128Mi", "1Gi", "1e9"]),
        "metrics-port": st.integers(1024, 65535).map(str),
        "sync-interval": st.integers(1, 100).map(lambda seconds: f"{seconds}s"),
    },
)
wild: st.SearchStrategy[dict[str, Any]] = st.dictionaries(keys, texts | json_values, max_size=6)
one_wild = st.builds(lambda most, one: {**most, **one}, sound, st.dictionaries(keys, texts, max_size=1))
own_annotations: st.SearchStrategy[dict[str, Any]] = sound | one_wild | wild


def answer(body: bytes) -> webhook.Answer:
    """The answer to `body`; whatever it is, it is not a fault of ours, and what is noted of it is bounded."""
    found = asyncio.run(webhook.answer("POST", "/mutate", body, OPTIONS))
    assert found.status in {200, 400, 413}, found
    assert len(found.record.reason) < 30
    if found.status == 200:
        response = json.loads(found.body)["response"]
        assert response["uid"] == found.record.uid
        assert response["allowed"] is (found.record.outcome not in {"denied", "guarded"})
    return found


def injected_twice(pod: Mapping[str, Any]) -> None:
    """If a Pod is patched, the patch applies, and a second call has nothing to add."""
    for call in range(2):
        found = answer(review(object=pod))
        response = json.loads(found.body)["response"] if found.status == 200 else {}
        if "patch" not in response:
            return
        assert call == 0, f"patched again: {base64.b64decode(response['patch'])!r}"
        before = copy.deepcopy(pod)
        pod = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))
        assert pod != before


def annotated(own: Mapping[str, Any]) -> dict[str, Any]:
    """A Pod with annotations of our group."""
    pod: dict[str, Any] = json.loads(review())["request"]["object"]
    pod["metadata"]["annotations"] = {f"{GROUP}/{key}": value for key, value in own.items()}
    return pod


@given(st.binary(max_size=2000))
@fuzz
def test_any_bytes_are_answered(body: bytes) -> None:
    answer(body)


@given(json_values)
@fuzz
def test_any_json_is_answered(value: object) -> None:
    answer(json.dumps(value).encode())


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where something stands in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, item in inner for place in places(item, (*path, key))]


@given(st.data())
@fuzz
def test_a_review_with_anything_anywhere_is_answered(data: st.DataObject) -> None:
    asked = json.loads(review(object=annotated({"inject": "true", "run-as-user": "1000", "path": "/data/app.db"})))
    for _ in range(data.draw(st.integers(1, 3))):
        found: Any = asked
        *way, last = data.draw(st.sampled_from(places(asked)))
        for step in way:
            found = found[step]
        if data.draw(st.booleans()):
            found[last] = data.draw(json_values)
        else:
            del found[last]
        if not places(asked):
            break
    answer(json.dumps(asked).encode())


@given(st.binary(max_size=30), st.integers(0, 1500), st.integers(0, 30))
@fuzz
def test_a_damaged_review_is_answered(noise: bytes, start: int, length: int) -> None:
    whole = review(object=annotated({"inject": "true", "run-as-user": "1000"}))
    answer(whole[:start] + noise + whole[start + length :])


@given(own_annotations)
@fuzz
def test_any_annotations_are_denied_or_injected_once(own: dict[str, Any]) -> None:
    injected_twice(annotated({"inject": "true", "run-as-user": "1000", **own}))


@given(texts)
@fuzz
def test_a_quoted_text_stays_in_its_quotes(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable()
    assert shown.startswith('"')
    assert shown.endswith('"')


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("pair") / "certificates"
    write_pair(folder)
    return (folder / "tls.crt").read_bytes() + (folder / "tls.key").read_bytes()


def read_pem(pem: bytes) -> None:
    """Whatever stands in a mounted file is served or refused in a sentence."""
    with contextlib.suppress(BadCertificate):
        certificate.facts(pem)
    with contextlib.suppress(BadCertificate):
        context.server_context(certificate.Pair(pem, pem))


@given(noise=st.binary(max_size=60), start=st.integers(0, 900), length=st.integers(0, 60))
@fuzz
def test_a_damaged_pem_is_served_or_refused(pair: bytes, noise: bytes, start: int, length: int) -> None:
    read_pem(pair[:start] + noise + pair[start + length :])


@pytest.mark.parametrize("file", sorted((CORPUS / "reviews").iterdir()), ids=lambda file: file.name)
def test_the_corpus_of_reviews_is_answered(file: Path) -> None:
    answer(file.read_bytes())


@pytest.mark.parametrize("file", sorted((CORPUS / "annotations").iterdir()), ids=lambda file: file.name)
def test_the_corpus_of_annotations_is_denied_or_injected_once(file: Path) -> None:
    injected_twice(annotated(json.loads(file.read_text())))


@pytest.mark.parametrize("file", sorted((CORPUS / "pems").iterdir()), ids=lambda file: file.name)
def test_the_corpus_of_pem_files_is_refused(file: Path) -> None:
    with pytest.raises(BadCertificate, match=r"\w+ \w+"):
        context.server_context(certificate.Pair(file.read_bytes(), file.read_bytes()))
    read_pem(file.read_bytes())
