"""The operator's file: every problem is told, by key, value and what would be right; a sound one gives defaults."""

from pathlib import Path

import pytest

from injector import options
from injector.annotations import operator_file
from injector.annotations.defaults import NONE
from injector.annotations.operator_file import NOTHING, InvalidDefaults, OperatorFile

OPTIONS = options.read({})
WHOLE = """\
defaults:
  endpoint: https://minio.example.com
  bucket: replicas
  run-as-user: 1000
  init-first: false
  litestream-version: 0.5
namespaces:
  shop:
    bucket: shop
enforce: [endpoint]
allow:
  bucket: [replicas, "{namespace}"]
"""


def read(text: str) -> OperatorFile:
    return operator_file.read(text, OPTIONS)


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidDefaults) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_values_are_texts_without_quotes_as_in_annotations() -> None:
    assert read(WHOLE).everywhere == {
        "endpoint": "https://minio.example.com",
        "bucket": "replicas",
        "run-as-user": "1000",
        "init-first": "false",
        "litestream-version": "0.5",
    }


def test_the_nearest_of_file_and_namespace_is_used_and_says_where_it_is_from() -> None:
    file = read(WHOLE)
    anywhere, shop = file.of("other"), file.of("shop")
    assert anywhere.used["bucket"] == ("replicas", "the operator's defaults")
    assert shop.used["bucket"] == ("shop", "the operator's defaults for namespace shop")
    near = file.of("shop", {"bucket": "replicas", "region": "eu-1"})
    assert near.used["bucket"] == ("replicas", "the annotations of Namespace shop")
    assert near.used["region"] == ("eu-1", "the annotations of Namespace shop")
    assert near.operator["bucket"] == "shop"
    assert near.warnings == []


def test_what_has_no_effect_on_a_namespace_is_told() -> None:
    warnings = NOTHING.of("shop", {"inject": "true", "buckt": "x", "status": "{}"}).warnings
    assert warnings[0] == 'Namespace shop: "inject" has no effect here: each Pod asks for itself'
    assert "did you mean bucket?" in warnings[1]
    assert "written by the webhook alone" in warnings[2]


def test_what_the_store_of_a_namespace_s_bucket_does_not_have_is_told() -> None:
    warnings = NOTHING.of("shop", {"bucket": "gs://shop", "endpoint": "https://minio", "ca": "secret/own"}).warnings
    assert warnings == ['Namespace shop: "endpoint" is nothing that Google Cloud Storage has']


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "defaults:\nnamespaces:\nenforce:\nallow:\n"])
def test_an_empty_file_changes_nothing(text: str) -> None:
    assert read(text) == NOTHING
    assert read(text).of("shop") is NONE


def test_every_problem_is_told_at_once() -> None:
    told = problems(
        "default: {}\n"
        "defaults: {bucket: B, buckt: b, inject: true, endpoint: [a], region: , path: data}\n"
        "namespaces: {Shop: {}, shop: {retention: 7d}, x: y}\n"
        "enforce: [endpoint, ednpoint, inject]\n"
        "allow: {buckets: [a], bucket: [], image: ['a b'], secret: ['{pod}'], replica-path: no}\n"
    )
    assert [line.partition(": ")[0] for line in told] == [
        '"default"', "defaults.bucket", "defaults.buckt", "defaults.inject", "defaults.endpoint", "defaults.region",
        "defaults.path", "namespaces", "namespaces.shop.retention", "namespaces.x", "enforce", "enforce",
        "allow.buckets", "allow.bucket", "allow.image", "allow.secret", "allow.replica-path",
    ]  # fmt: skip
    assert told[0] == f'"default": is none of {", ".join(operator_file.SECTIONS)}; did you mean defaults?'
    assert told[1].startswith('defaults.bucket: "B": write an S3 bucket name')
    assert told[3] == "defaults.inject: has no effect here: each Pod asks for itself"
    assert told[8].startswith('namespaces.shop.retention: "7d": write a duration')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "is no mapping: write defaults:, namespaces:, enforce:, allow:"),
        ("just text", "is no mapping"),
        ("defaults: {", "line 1: is no YAML"),
        ("a: 1\n---\nb: 2\n", "is no YAML"),
        ("defaults:\n  bucket: one\n  bucket: two\n", 'line 3: "bucket" is there twice'),
        ("a: &a [*a]\n", "is no YAML"),
        ("a: \x00", "is no YAML"),
    ],
)
def test_what_is_no_such_file_at_all_is_told(text: str, told: str) -> None:
    assert told in problems(text)[0]


def test_values_that_contradict_each_other_are_told_where_they_meet() -> None:
    told = problems("defaults: {cpu-request: 2}\nnamespaces: {shop: {cpu-limit: 1}}\n")
    assert len(told) == 1
    assert told[0].startswith('namespaces.shop.cpu-request: "2": is more than')


def test_a_default_that_is_not_allowed_is_told() -> None:
    told = problems(
        "defaults: {bucket: other}\nnamespaces: {shop: {bucket: web}}\nallow: {bucket: ['{namespace}-*']}\n"
    )
    assert told == [
        'defaults.bucket: "other": is not what allow.bucket allows: change one of them',
        'namespaces.shop.bucket: "web": is not what allow.bucket allows: change one of them',
    ]


def test_a_ca_is_held_to_what_is_allowed() -> None:
    told = problems("defaults: {ca: secret/own}\nallow: {ca: ['configmap/*']}\n")
    assert told == ['defaults.ca: "secret/own": is not what allow.ca allows: change one of them']


def test_what_the_store_of_the_bucket_beside_it_does_not_have_is_told() -> None:
    told = problems(
        "defaults: {bucket: 'gs://shared', addressing: path, region: eu}\n"
        "namespaces: {shop: {bucket: 'abs://account/shop', region: eu}}\n"
    )
    assert told == [
        'defaults.addressing: "path": is nothing that Google Cloud Storage has: remove it',
        'defaults.region: "eu": is nothing that Google Cloud Storage has: remove it',
        'namespaces.shop.region: "eu": is nothing that Azure Blob Storage has: remove it',
    ]


def test_a_default_may_be_for_the_bucket_of_a_namespace() -> None:
    file = read("defaults: {bucket: 'gs://shared', region: eu}\nnamespaces: {shop: {bucket: shop}}\n")
    assert file.of("shop").used["region"].text == "eu"
    assert read("defaults: {endpoint: 'https://minio'}\nnamespaces: {shop: {bucket: 'gs://shop'}}\n").namespaces


def test_a_password_is_not_repeated() -> None:
    told = problems(
        "defaults: {bucket: 'sftp://me:hunter2@nas/b', endpoint: 'https://me:hunter2@minio'}\n"
        "litestream-options: {heartbeat-url: 'https://hc/?token=hunter2'}\n"
    )
    assert len(told) == 3
    assert "hunter2" not in str(told)


def test_problems_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "defaults.yaml"
    with pytest.raises(InvalidDefaults, match=r"defaults\.yaml: can't be read: No such file"):
        operator_file.load(str(file), OPTIONS)
    file.write_bytes(b"defaults: \xff")
    with pytest.raises(InvalidDefaults, match="is not UTF-8"):
        operator_file.load(str(file), OPTIONS)
    file.write_text("#" * operator_file.LARGEST_FILE + "\n")
    with pytest.raises(InvalidDefaults, match="is larger than"):
        operator_file.load(str(file), OPTIONS)
    file.write_text("a: 1\nb: 2\n")
    with pytest.raises(InvalidDefaults) as caught:
        operator_file.load(str(file), OPTIONS)
    assert all(line.startswith(f"{file}: ") for line in str(caught.value).splitlines())
    assert operator_file.load("", OPTIONS) is NOTHING
