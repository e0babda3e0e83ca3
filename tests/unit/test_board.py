"""The board: rates and lines that come of looks, without a terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from stackctl.cli.pipeline.board import TO_SEND, History, compose_board, draw_trend, format_rate
from stackctl.sync.queue.entries import QueueSummary
from stackctl.sync.queue.fuses import Fuses
from stackctl.sync.queue.retries import Failure
from stackctl.sync.status import DatabaseStatus, MappingStatus, Status, TableStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ACME, GLOBEX = UUID("6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"), UUID("0b7cf1c3-51a4-4f0c-9d3e-2f6f1f0c7a11")
QUIET = QueueSummary(0, 0, 0, 0, None)


def copy(name: str, backlog: int, **more: object) -> MappingStatus:
    made = MappingStatus(name, 7, 9, backlog, 4000 if backlog else 0, NOW - timedelta(seconds=12))
    return replace(made, **more)


def database(name: str, copies: Sequence[MappingStatus], **more: object) -> DatabaseStatus:
    made = DatabaseStatus(name, "postgres", "postgresql://db", "ok", None, None, 0, None, mappings=tuple(copies))
    return replace(made, **more)


def status(*databases: tuple[UUID, DatabaseStatus], stamps: int = 0, queue: QueueSummary = QUIET) -> Status:
    found: dict[UUID, tuple[DatabaseStatus, ...]] = {}
    for tenancy, one in databases:
        found[tenancy] = (*found.get(tenancy, ()), one)
    return Status(NOW, Fuses(True, True), {"ProjectUser": TableStatus(9, stamps, 1, 9)}, queue, found)


def lines(found: Status, history: History | None = None, **more: Any) -> list[str]:
    shape: dict[str, Any] = {"width": 80, "height": 24, "now": NOW, "interval": 2.0} | more
    if history is None:
        (history := History()).add(0, found)
    composed = compose_board(found, history, **shape)
    assert all(len(text) <= shape["width"] for text, _ in composed) and len(composed) <= shape["height"]
    return [text.rstrip() for text, _ in composed]


def test_a_backlog_has_a_rate_and_a_time_left() -> None:
    history, key = History(), (ACME, "analytics", "users")
    for at, backlog in enumerate((1000, 900, 800, 700)):
        history.add(at * 2.0, status((ACME, database("analytics", [copy("users", backlog)]))))
    assert (history.compute_rate(key), history.compute_left(key)) == (-50.0, 14.0)
    assert history.get_counts(TO_SEND) == [1000, 900, 800, 700]
    # What grows, stands still or was seen once has no end; what was long ago does not count.
    history.add(60.0, status((ACME, database("analytics", [copy("users", 759)]))))
    assert history.compute_rate(key) == pytest.approx(59 / 54) and history.compute_left(key) is None
    history.add(62.0, status((ACME, database("analytics", [copy("users", 759)]))))
    assert (history.compute_rate(key), history.compute_left(key)) == (0.0, None)
    assert History().compute_rate(key) is None and History().compute_left(key) is None
    assert [format_rate(rate) for rate in (None, 0.01, -0.44, 3.0, -1234.5)] == ["", "", "-0.4/s", "+3.0/s", "-1,234/s"]


def test_a_trend_shows_the_last_looks_and_no_row_is_none() -> None:
    assert draw_trend([9, 0, 1, 700, 1400], 4, blocks=True) == "▁▂▅█"
    assert draw_trend([0, 1, 1], 9, blocks=False) == "_##"
    assert draw_trend([], 9, blocks=True) == draw_trend([1], 0, blocks=True) == ""


def test_trouble_comes_first_then_the_longest_backlog() -> None:
    failure = Failure(GLOBEX, "dead", 12, NOW - timedelta(hours=2), "no space left", "x", None, "users")
    found = status(
        (ACME, database("quiet", [copy("users", 0), copy("teams", 0)])),
        (ACME, database("short", [copy("users", 5)])),
        (ACME, database("long", [copy("users", 12_345), copy("teams", 0)])),
        (GLOBEX, database("dead", [copy("users", 3, failure=failure)], status="error", error="no space left")),
        (GLOBEX, database("changed", [copy("users", 0, change="a column came")])),
        (GLOBEX, database("file", [], busy="another process holds it")),
        stamps=17, queue=replace(QUIET, pending=2, dead=1, oldest_age_ms=4000),
    )  # fmt: skip
    shown = lines(found, width=100, height=40)
    names = [line.split()[1] for line in shown if line[:1] in set("✗!=…▸✓")]
    assert names == ["dead", "changed", "file", "long", "short", "quiet"]
    assert shown[1] == "queue     2 pending, 1 dead, oldest 4 s"
    text = "\n".join(shown)
    assert f"✗ dead (postgres)  ERROR  {GLOBEX}" in shown
    assert "users: no space left (failing for 2h 00m, 12 attempts, given up)" in text
    assert "to stamp  17" in text and "another process holds it" in text and "a column came" in text
    # Where not all fits, what is up to date is one line; what is beyond the window is counted.
    brief = lines(found, height=20)
    assert "✓ 1 database up to date" in brief and not any("teams" in line for line in brief)
    low = lines(found, height=10)
    assert any("dead (postgres)" in line for line in low) and "more lines" in low[-2] and low[-1] == "q: quit"


def test_every_window_has_lines_that_fit_and_no_id_cut_in_two() -> None:
    found = status(*((tenancy, database(f"analytics{n}", [copy("notification_preferences", n * 1000)]))
                     for n in range(9) for tenancy in (ACME, GLOBEX)))  # fmt: skip
    history = History()
    for at in range(3):
        history.add(at, found)
    for width, height in ((140, 40), (80, 24), (79, 10), (40, 10), (20, 5), (10, 2), (1, 1)):
        shown = lines(found, history, width=width, height=height, trouble="the server closed the connection " * 9)
        words = {word for line in shown for word in line.split() if word.startswith(str(ACME)[:4])}
        assert words <= {str(ACME), str(ACME)[:8]}, (width, words)
    assert any("8,000" in line for line in lines(found, history, width=40, height=10))
    assert "".join(lines(found, history, blocks=False)).isascii()


def test_what_is_old_says_so() -> None:
    found = status((ACME, database("quiet", [])))
    shown = lines(found, now=NOW + timedelta(seconds=75), trouble="it can't be reached")
    assert shown[1] == "no news for 1m 15s, trying on: it can't be reached"
    assert any("no external database" in line for line in lines(status()))
