"""`make bench`: what it writes is what was measured, and its clients count what fails."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from tests import reviews
from tests.bench import core, load, page
from tests.running import running, write_pair


def test_a_table_is_markdown() -> None:
    table = page.Table("Title", "Note.", ("", "ms"), [("start", "3")])
    assert str(table) == "### Title\n\nNote.\n\n|  | ms |\n| --- | ---: |\n| start | 3 |"


def test_only_what_is_between_the_marks_is_written_anew() -> None:
    before = f"# Title\n\n{page.BEGIN}\n\nold\n\n{page.END}\n\nmore\n"
    assert page.written(before, "new") == before.replace("old", "new")
    assert page.written(page.written(before, ""), "new") == before.replace("old", "new")
    with pytest.raises(ValueError, match="has no <!-- bench -->"):
        page.written("# Title\n", "new")


def test_the_page_can_be_written() -> None:
    assert page.BEGIN in page.written(page.PAGE.read_text(), "new")


def test_the_machine_is_described_without_its_name() -> None:
    assert "Python 3" in page.machine()
    assert socket.gethostname() not in page.machine()


def test_numbers_are_a_median_and_a_spread() -> None:
    assert page.spread([3, 1, 2000]) == "3 (1 to 2,000)"
    assert [page.percentile(range(1000), share) for share in (50, 99, 99.9, 100)] == [500, 990, 999, 999]


def test_reviews_of_each_kind_have_their_size() -> None:
    sizes = {what: len(body) for what, body in core.bodies().items()}
    assert [round(size / 1000) for size in sizes.values()] == [6, 60, 6]
    outcomes = [json.loads(body)["request"]["object"]["metadata"].get("annotations") for body in core.bodies().values()]
    assert [bool(annotations) for annotations in outcomes] == [True, True, False]


@pytest.mark.slow
def test_clients_count_answers_and_what_fails(tmp_path: Path) -> None:
    sent = load.request(json.dumps(reviews.review(reviews.pod())).encode())
    write_pair(tmp_path / "other")

    async def run(port: int, ca: Path) -> tuple[load.Seen, ...]:
        clients = [await load.Client.to(port, load.trusting(ca)) for _ in range(3)]
        seen = await load.kept(clients, sent, 10)
        for client in clients:
            client.close()
        several = await load.anew(port, load.trusting(ca), sent, count=4, workers=2, each=3)
        wrong = await load.anew(port, load.trusting(tmp_path / "other-ca.crt"), sent, count=4, workers=2)
        once, answers = await load.at_once([port, port], load.trusting(ca), [sent, sent, b"GET / HTTP/1.1\r\n\r\n"])
        assert [b'"allowed":true' in answer for answer in answers] == [True, True]
        return seen, several, wrong, once

    with running(tmp_path) as replica:
        seen, several, wrong, once = asyncio.run(run(replica.port, replica.ca))
    assert [len(each.took) for each in (seen, several, wrong, once)] == [10, 12, 0, 2]
    assert [len(each.failed) for each in (seen, several, wrong, once)] == [0, 0, 4, 1]
