"""What is found with one Pod: all of it, by the full key, without credentials."""

import pytest

from injector.annotations.findings import Findings, without_credentials
from injector.errors import Violation

SECRET = "hunter2"


def test_everything_is_gathered_by_the_full_key() -> None:
    findings = Findings("example.com")
    findings.deny("path", "relative", "write an absolute path")
    findings.deny("bucket", None, "write a bucket")
    findings.warn("a risk")
    assert findings.violations == [
        Violation("example.com/path", "relative", "write an absolute path"),
        Violation("example.com/bucket", None, "write a bucket"),
    ]
    assert findings.warnings == ["a risk"]


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
    ],
)
def test_a_value_is_told_without_its_credentials(name: str, value: str, expected: str) -> None:
    assert without_credentials(name, value) == expected
