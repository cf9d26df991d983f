"""What is found with one Pod: all of it, by the full key."""

from injector.annotations.findings import Findings
from injector.errors import Violation


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
