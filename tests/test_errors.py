"""What is wrong, in words that stay in their line and their quotes."""

import pytest

from injector.errors import InvalidPod, Violation, escaped, quoted, without_credentials

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", '"plain"'),
        ('a "b" \\ c', '"a \\"b\\" \\\\ c"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("a\u202eb", '"a\\u202eb"'),
        ("é", '"é"'),
        ("x" * 200, '"' + "x" * 119 + '…"'),
    ],
)
def test_a_users_text_is_quoted_and_stays_in_one_line(text: str, expected: str) -> None:
    assert quoted(text) == expected


def test_what_is_printable_is_not_escaped() -> None:
    assert escaped("a\tb é") == "a\\tb é"


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "spec.replicas: write 1"), ("2", 'spec.replicas: "2": write 1')]
)
def test_a_violation_names_its_field_its_value_if_there_is_one_and_what_is_right(
    value: str | None, expected: str
) -> None:
    assert str(Violation("spec.replicas", value, "write 1")) == expected


def test_an_invalid_pod_tells_all_that_is_wrong_with_it() -> None:
    assert (
        str(InvalidPod([Violation("a", None, "write 1"), Violation("b", None, "write 2")])) == "a: write 1; b: write 2"
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("endpoint", f"https://user:{SECRET}@minio:9000", "https://…@minio:9000"),
        ("endpoint", f"user:{SECRET}@minio", "…@minio"),
        ("endpoint", f"http://minio/?X-Amz-Signature={SECRET}", "http://minio/?…"),
        ("bucket", f"s3://key:{SECRET}@bucket", "…@bucket"),
        ("endpoint", "http://minio:9000", "http://minio:9000"),
        ("image", "app@sha256:12", "app@sha256:12"),
        ("replica-path", "a?b", "a?b"),
        ("heartbeat-url", f"https://user:{SECRET}@hc/?token={SECRET}", "https://…@hc/?…"),
    ],
)
def test_a_value_is_told_without_its_credentials(name: str, value: str, expected: str) -> None:
    assert without_credentials(name, value) == expected
