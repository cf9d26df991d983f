"""Annotations → Settings: defaults, every mistake at once, what contradicts what, and Litestream's release."""

import re

import pytest

from injector import GROUP, options
from injector.annotations import settings
from injector.annotations.findings import Findings
from injector.annotations.settings import Settings
from injector.annotations.table import ANNOTATIONS, BY_KEY, UNDONE, Annotation

OPTIONS = options.read({})
DIGEST = "sha256:" + "0" * 64
SECRET = "hunter2"


def read(**own: str) -> tuple[Settings, Findings]:
    findings = Findings(GROUP)
    keys = {key.replace("_", "-"): text for key, text in own.items()}
    return settings.read(keys, OPTIONS, findings), findings


def violations(**own: str) -> dict[str, str]:
    _, findings = read(**{"inject": "true", **own})
    return {violation.field.removeprefix(f"{GROUP}/"): str(violation) for violation in findings.violations}


def warnings(**own: str) -> str:
    _, findings = read(**{"inject": "true", **own})
    assert findings.violations == []
    return "\n".join(findings.warnings)


def test_a_bare_inject_has_the_defaults_and_no_findings() -> None:
    asked, findings = read(inject="true")
    assert (findings.violations, findings.warnings) == ([], [])
    assert asked.path == ("/mnt/litestream.db",)
    assert (str(asked.bucket), asked.region, asked.secret, asked.endpoint) == (
        "litestream",
        "us-east-1",
        "litestream-hook-secret",
        None,
    )
    assert asked.litestream_version == (0, 5, 17)
    assert (asked.sidecar, asked.init_first, asked.restore, asked.auth) == ("native", True, "if-exists", "secret")
    assert asked.given == {"inject"}
    assert not asked.broken


@pytest.mark.parametrize(
    "annotation", [each for each in ANNOTATIONS if each.default is not None], ids=lambda each: each.key
)
def test_writing_a_default_out_changes_nothing_but_that_it_was_written(annotation: Annotation) -> None:
    bare, _ = read(inject="true")
    written, findings = read(**{"inject": "true", annotation.key: annotation.default or ""})
    assert findings.violations == []
    for name in Settings.__struct_fields__:
        if name != "given":
            assert getattr(written, name) == getattr(bare, name)


def test_the_operators_images_replace_the_defaults() -> None:
    chosen = options.read({"DEFAULT_IMAGE": "mirror.example.com/litestream:0.3.13", "INIT_IMAGE": "mirror/busybox:1"})
    asked = settings.read({"inject": "true"}, chosen, Findings(GROUP))
    assert asked.image.reference == "mirror.example.com/litestream:0.3.13"
    assert asked.init_image.reference == "mirror/busybox:1"
    assert asked.litestream_version == (0, 3, 13)


def test_all_mistakes_are_told_together_each_with_its_key_and_value() -> None:
    wrong = {
        "path": "data.db",
        "bucket": "A",
        "endpoint": "minio",
        "region": "-",
        "secret": "S",
        "addressing": "host",
        "auth": "x",
        "ca": "own-ca",
        "storage-class": "GLACIER",
        "sse-kms-key-id": "a key",
        "image": "A B",
        "litestream-version": "0.4",
        "storage": "1",
        "containers": "",
        "run-as-user": "root",
        "sidecar": "no",
        "init-first": "1",
        "restore": "yes",
        "restore-timestamp": "now",
        "integrity-check": "1",
        "sync-interval": "1",
        "retention": "7d",
        "memory-limit": "1",
        "metrics-port": "80",
        "log-level": "trace",
        "single-writer": "never",
        "replica-path": "/x",
    }
    found = violations(**wrong)
    assert set(found) == set(wrong)
    for key, value in wrong.items():
        assert found[key].startswith(f'{GROUP}/{key}: "{value}": ')


@pytest.mark.parametrize("value", ["True", "TRUE", "yes", "1", "", " true", "true\n", "enabled"])
def test_another_word_than_true_or_false_is_no_silent_consent(value: str) -> None:
    assert 'write "true" or "false"' in violations(inject=value)["inject"]


def test_other_keys_without_inject_are_a_mistake() -> None:
    _, findings = read(bucket="b-1")
    assert [str(violation) for violation in findings.violations] == [
        f'{GROUP}/inject: is missing: write "true" to ask for injection, or "false" to decline it'
    ]


def test_a_misspelt_inject_is_named_even_behind_other_unknown_keys() -> None:
    _, findings = read(foo="1", injekt="true")
    assert f"there is {GROUP}/injekt instead" in str(findings.violations[0])


def test_an_unknown_key_is_a_warning_with_a_suggestion() -> None:
    assert warnings(sync_intervall="1s") == f"{GROUP}/sync-intervall: unknown annotation; did you mean sync-interval?"
    assert warnings(zzz="1") == f"{GROUP}/zzz: unknown annotation"


def test_a_key_of_something_that_is_not_done_says_so_and_what_to_write_instead() -> None:
    told = warnings(age="age1key", force_path_style="true", secret_access_key="very secret")
    assert "/age: unknown annotation: Litestream 0.5 can't encrypt by itself, so nothing is encrypted" in told
    assert "/force-path-style: unknown annotation: write addressing" in told
    assert "/secret-access-key: unknown annotation: credentials belong in the Secret" in told
    assert "very secret" not in told


@pytest.mark.parametrize("key", UNDONE)
def test_nothing_that_is_said_not_to_be_done_is_an_annotation(key: str) -> None:
    assert key not in BY_KEY
    named = re.findall(r"(?:write|annotation) ([a-z-]+)", UNDONE[key])
    assert set(named) <= BY_KEY.keys(), "what it says to write is none"


@pytest.mark.timeout(60)
def test_a_megabyte_of_unknown_keys_is_answered_in_few_words() -> None:
    own = {f"sync-interva{number}": "1" for number in range(50_000)}
    found = warnings(**own).splitlines()
    assert len(found) < 50
    assert "more" in found[-1]


@pytest.mark.parametrize(
    ("own", "field"),
    [
        ({"cpu_request": "2", "cpu_limit": "1"}, "cpu-request"),
        ({"memory_request": "1Gi"}, "memory-request"),
        ({"memory_limit": "32Mi"}, "memory-request"),
        ({"restore_timestamp": "2026-01-31T12:00:00Z"}, "restore-timestamp"),
        ({"restore": "off", "restore_from": "x/{database}"}, "restore-from"),
        ({"image": "litestream/litestream:0.3.13", "litestream_version": "0.5"}, "litestream-version"),
        ({"image": "litestream/litestream:0.5.17", "litestream_version": "0.3"}, "litestream-version"),
        ({"image": "litestream/litestream:0.3.4"}, "image"),
    ],
    ids=str,
)
def test_two_annotations_that_contradict_each_other_are_denied(own: dict[str, str], field: str) -> None:
    assert list(violations(**own)) == [field]


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ({"auth": "ambient", "secret": "s"}, "has no effect"),
        ({"retention": "1h"}, "points in time between snapshots"),
        ({"sync_interval": "5m"}, "loses up to 5m of rows"),
        ({"sync_interval": "10ms"}, "100ms or more will do"),
        ({"image": "litestream/litestream:0.5.16"}, "known corruption bug"),
        ({"image": "litestream/litestream:0.3.13"}, "restores nothing"),
        ({"image": "litestream/litestream:0.3.13", "integrity_check": "full"}, "has no effect with Litestream 0.3"),
    ],
    ids=str,
)
def test_what_is_allowed_but_risky_is_told(own: dict[str, str], text: str) -> None:
    assert text in warnings(**own)


@pytest.mark.parametrize("own", [{"memory_limit": "x", "memory_request": "1Gi"}, {"retention": "x"}], ids=str)
def test_a_broken_value_brings_no_second_complaint_about_its_default(own: dict[str, str]) -> None:
    _, findings = read(inject="true", **own)
    assert len(findings.violations) == 1
    assert findings.warnings == []


@pytest.mark.parametrize(
    ("tag", "version", "silent"),
    [
        (":0.3.13", (0, 3, 13), False),
        (":v0.3.9", (0, 3, 9), False),
        (":0.3", (0, 3, 13), False),
        (":0.5.17", (0, 5, 17), True),
        (":v0.5.18", (0, 5, 18), True),
        (":0.5.17-scratch", (0, 5, 17), True),
        (":0.5-alpine", (0, 5, 17), True),
        (":0.5", (0, 5, 17), True),
        (":latest", (0, 5, 17), True),
        (":sha-0a1b2c3", (0, 5, 17), True),
        (":20260131", (0, 5, 17), True),
        ("", (0, 5, 17), True),
        (f"@{DIGEST}", (0, 5, 17), True),
        (f":0.5.17@{DIGEST}", (0, 5, 17), True),
        (":0.6.1", (0, 5, 17), False),
        (":1.2.3", (0, 5, 17), False),
        (":0.50.1", (0, 5, 17), False),
        (":0.30", (0, 5, 17), False),
    ],
)
def test_the_release_is_told_by_the_tag(tag: str, version: tuple[int, int, int], silent: bool) -> None:
    asked, findings = read(inject="true", image=f"registry.example.com:5000/litestream{tag}")
    assert findings.violations == []
    assert asked.litestream_version == version
    assert (findings.warnings == []) is silent


@pytest.mark.parametrize(("written", "version"), [("0.3", (0, 3, 13)), ("0.5", (0, 5, 17))])
def test_the_release_can_be_written_where_the_tag_does_not_tell(written: str, version: tuple[int, int, int]) -> None:
    asked, findings = read(inject="true", image=f"mirror/x@{DIGEST}", litestream_version=written)
    assert findings.violations == []
    assert asked.litestream_version == version


@pytest.mark.parametrize(
    "value",
    [
        f"http://user:{SECRET}@minio:9000",
        f"http://user:a@{SECRET}@minio",
        f"http://user:{SECRET}/x@minio",
        f"https://{SECRET}@minio",
        f"user:{SECRET}@minio:9000",
        f"user:{SECRET}//x@minio",
        f"ftp://user:{SECRET}@minio",
        f"http://user:x\n{SECRET}@minio",
        f"http://minio/?X-Amz-Signature={SECRET}",
        f"http://minio/?a@{SECRET}",
        f"http://user:?{SECRET}@minio",
    ],
)
def test_credentials_in_an_endpoint_are_not_repeated(value: str) -> None:
    found = violations(endpoint=value)
    assert "write a URL such as" in found["endpoint"]
    assert SECRET not in found["endpoint"]


def test_credentials_in_a_url_elsewhere_are_not_repeated_but_digests_are() -> None:
    assert SECRET not in violations(bucket=f"s3://key:{SECRET}@bucket")["bucket"]
    assert "app@sha256:12" in violations(image="app@sha256:12")["image"]


def test_control_characters_of_a_value_stay_out_of_the_message() -> None:
    found = violations(bucket="a\nb\x1b[31m\u202e")["bucket"]
    assert found.isprintable()


@pytest.mark.parametrize(
    "metadata",
    [None, [], "x", 1, {}, {"annotations": None}, {"annotations": []}, {"annotations": "x"}, {"annotations": {1: 2}}],
)
def test_metadata_of_any_shape_has_no_annotations_of_ours(metadata: object) -> None:
    assert settings.ours(metadata, GROUP) == {}


def test_another_variants_annotations_are_not_ours() -> None:
    metadata = {"annotations": {f"skaffold.{GROUP}/inject": "true", f"{GROUP}x/inject": "true", f"{GROUP}": "true"}}
    assert settings.ours(metadata, GROUP) == {}
    assert settings.ours(metadata, f"skaffold.{GROUP}") == {"inject": "true"}


@pytest.mark.parametrize(
    ("text", "endpoint", "warned"),
    [
        ("STANDARD_IA", None, ""),
        (
            "STANDRAD_IA",
            None,
            "refuses every file, and nothing is replicated; it is none of Amazon's; did you mean STANDARD_IA?",
        ),
        ("STANDRAD_IA", "http://minio:9000", "did you mean STANDARD_IA?"),
        ("COLD", None, "COLD: a server that does not know this class refuses every file"),
        ("COLD", "https://s3.example.com", ""),
    ],
)
def test_a_slip_in_a_storage_class_is_warned_of(text: str, endpoint: str | None, warned: str) -> None:
    server = {} if endpoint is None else {"endpoint": endpoint}
    said = warnings(storage_class=text, **server)
    assert warned in said
    assert bool(warned) == bool(said)


@pytest.mark.parametrize(
    ("key", "text", "too_old", "known"),
    [("storage-class", "STANDARD_IA", "0.5.13", "0.5.14"), ("sse-kms-key-id", "alias/a", "0.3.13", "0.5.6")],
)
def test_what_a_release_would_ignore_without_a_word_is_denied(key: str, text: str, too_old: str, known: str) -> None:
    own = {key.replace("-", "_"): text}
    (why,) = violations(**own, image=f"litestream/litestream:{too_old}").values()
    assert why.startswith(f'{GROUP}/{key}: "{text}": is nothing that Litestream {too_old} knows: use {known} or newer')
    assert violations(**own, image=f"litestream/litestream:{known}") == {}
    assert violations(**own) == {}
