"""The documentation is true: tables are the code's own, links lead somewhere, and quoted messages exist."""

import ast
import re
import subprocess
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from injector import GROUP, options
from injector.annotations import litestream_options, operator_file, settings
from injector.annotations import table as annotations
from injector.annotations.findings import Findings
from injector.serving import metrics
from injector.stores import STORES
from tests import reviews

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "examples" / "README.md"])
FOREIGN = {
    "SignatureDoesNotMatch",
    "NoSuchBucket",
    "failed calling webhook",
    "field is immutable",
    "SchedulingGated",
    "connection refused",
    "no endpoints available for service",
    "context deadline exceeded",
    "i/o timeout",
    "x509: certificate signed by unknown authority",
    'service "litestream-hook" not found',
    "CreateContainerConfigError",
    'secret "…" not found',
    "couldn't find key",
    "ErrImagePull",
    "ImagePullBackOff",
    "ContainerCreating",
    'MountVolume.SetUp failed for volume "litestream-hook-credentials"',
    "ContainerNotFound",
    "unable to authenticate",
    "host key mismatch",
}  # not our messages


def _options() -> str:
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    rows += [
        f"| `{option.variable}` | {f'`{option.default}`' if option.default else ''} | {option.meaning} |"
        for option in options.OPTIONS
    ]
    return "\n".join(rows)


def _metrics() -> str:
    rows = ["| metric | type | meaning |", "| --- | --- | --- |"]
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        if family.name.startswith("litestream_hook"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            rows.append(f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("page", "name", "table"),
    [
        ("annotations.md", "annotations", annotations.table),
        ("operating.md", "options", _options),
        ("operating.md", "metrics", _metrics),
        ("operating.md", "litestream-options", litestream_options.table),
    ],
)
def test_the_tables_are_the_codes_own(page: str, name: str, table: object, request: pytest.FixtureRequest) -> None:
    assert callable(table)
    text = (DOCS / page).read_text()
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = text.split(start)
    there, after = rest.split(end)
    expected = f"\n{table()}\n\n"
    if request.config.getoption("--update"):
        (DOCS / page).write_text(before + start + expected + end + after)
    else:
        assert there == expected, "run `make golden`"


@cache
def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no such file"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor:
            assert anchor in _anchors(target), f"{link}: no heading gives that anchor"


def test_every_page_is_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text()))
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"} <= linked


def test_every_yaml_and_every_command_of_a_page_can_be_read() -> None:
    """By a YAML parser, and by bash, which only looks at the words."""
    for page in PAGES:
        blocks = re.findall(r"^( *)```(yaml|sh)\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
        for _, language, text in blocks:
            content = textwrap.dedent(text)
            if language == "yaml":
                assert all(yaml.safe_load_all(content)), (page.name, content)
            else:
                read = subprocess.run(["bash", "-n"], input=content, capture_output=True, text=True, check=False)
                assert (read.returncode, read.stderr) == (0, ""), (page.name, content)


def test_the_tenants_file_of_the_platforms_can_be_used() -> None:
    (text,) = re.findall(
        r"^```yaml\n(defaults:.*?)^```$", (DOCS / "platforms.md").read_text(), re.MULTILINE | re.DOTALL
    )
    read = operator_file.read(text, reviews.DEFAULTS).of("shop")
    pod = reviews.pod(path="/data/app.db")
    assert reviews.response(pod, namespace="shop", defaults=read)["allowed"]
    reached = reviews.pod(replica_path="bank/deployment/ledger/data/app.db", endpoint="http://elsewhere")
    assert reviews.denied(reached, namespace="shop", defaults=read).keys() == {"replica-path", "endpoint"}


def test_every_claim_of_the_threat_model_names_its_tests_or_is_a_limit() -> None:
    model = (ROOT / "SECURITY.md").read_text().split("## Threat model")[1]
    claims = re.findall(r"^- (.+?)(?=^- |^#|\n\n|\Z)", model, re.MULTILINE | re.DOTALL)
    assert len(claims) > 20
    assert [claim for claim in claims if "](tests/" not in claim and not claim.startswith("**Limit**")] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page


def test_every_room_is_in_the_design() -> None:
    rooms = (DOCS / "design.md").read_text().split("## Rooms")[1]
    there = {f"`injector/{path.parent.name}/`" for path in (ROOT / "injector").glob("*/__init__.py")}
    assert there == set(re.findall(r"`injector/\w+/`", rooms))


def _texts() -> Iterator[str]:
    """Every text in the webhook's code and scripts; what is filled in at run time is a NUL in it."""
    for path in (ROOT / "injector").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)  # type: ignore[misc]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[sd]|\$\w+", "\0", node.value)
    for path in (ROOT / "injector").rglob("*.sh"):
        yield re.sub(r"\$\w+", "\0", path.read_text())


def test_every_message_in_troubleshooting_is_one_of_the_codes() -> None:
    texts = list(_texts())
    seen = re.findall(r"^\| ([^|]*`[^|]*) \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = {message for cell in seen for message in re.findall(r"`([^`]+)`", cell)} - FOREIGN
    parts = {part.strip() for message in messages for part in re.split(r'…|"[^"]*"', message)}
    assert {part for part in parts if not any(part in text for text in texts)} == set()
    assert len(messages) > 20


def test_the_annotations_for_each_server_are_accepted() -> None:
    page = (DOCS / "storage-and-restore.md").read_text()
    rows = re.findall(
        r"^\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|[^|]*\|$", page.split("| server |")[1].split("\n\n")[0], re.MULTILINE
    )
    servers = [[cell.strip() for cell in row] for row in rows if "---" not in row[0]]
    assert len(servers) > 10
    for server, *cells in servers:
        own = dict(zip(("endpoint", "region", "addressing"), cells, strict=True))
        written = {key: re.sub("[A-Z]+", "x1", text.strip("`")) for key, text in own.items() if text.startswith("`")}
        findings = Findings(GROUP)
        settings.read({"inject": "true", **written}, options.read({}), findings)
        assert (findings.violations, findings.warnings) == ([], []), server


def test_the_bucket_of_each_store_is_accepted() -> None:
    page = (DOCS / "storage-and-restore.md").read_text().split("| store | `bucket` |")[1].split("\n\n")[0]
    buckets = re.findall(r"^\|[^|]*\|[^|]*`([a-z0-9]+://[^`]+)`", page, re.MULTILINE)
    for text in buckets:
        own = {"bucket": re.sub("[A-Z]+", lambda name: {"PORT": "2222"}.get(name[0], "x1x"), text)}
        findings = Findings(GROUP)
        found = settings.read({"inject": "true", **own}, options.read({}), findings)
        assert [violation.field for violation in findings.violations] in ([], [f"{GROUP}/host-key"]), text
        assert found.bucket.kind == text.partition("://")[0]
    assert len(buckets) == len(STORES)
