"""The board's parts that need no server: sessions, history, and what is shown of many tenancies."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import ServiceError
from stackctl.server.board import live
from stackctl.server.board.document import PAGE, Steering, Summary, board_document
from stackctl.server.board.sessions import LIFETIME, Sessions
from stackctl.server.history import POINTS, STEP, History
from stackctl.sync.queue.entries import QueueSummary
from stackctl.sync.queue.fuses import Fuses
from stackctl.sync.queue.pauses import Pause
from stackctl.sync.queue.retries import Failure
from stackctl.sync.status import DatabaseStatus, MappingStatus, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_sessions() -> None:
    sessions = Sessions("token")
    cookie = sessions.create(1000)
    assert sessions.find_end(cookie, 1000) == 1000 + LIFETIME
    assert sessions.find_end(cookie, 1000 + LIFETIME) is None
    assert Sessions("another").find_end(cookie, 1000) is None
    later = f"{10**9}.{cookie.split('.', 1)[1]}"
    for wrong in ("", ".", "..", "x.y.z", cookie[:-1], cookie + "0", later, "ä.ö.ü", sessions.make_form_token(cookie)):
        assert sessions.find_end(wrong, 1000) is None
    assert sessions.make_form_token(cookie) != sessions.make_form_token(sessions.create(1000))


def test_history() -> None:
    now = 1000.0
    history = History(lambda: now)
    history.add("sent", 30)
    history.note_backlog(7)
    now += STEP
    history.add("sent", 20)
    now += STEP
    document = history.to_document()
    assert document["per_second"] == {"stamped": 0, "synced": 0, "sent": 5, "errors": 0}
    assert document["points"]["sent"][-3:] == [30, 20, 0]
    assert document["points"]["backlog"][-3:] == [7, None, None]
    assert {len(points) for points in document["points"].values()} == {POINTS}
    now += POINTS * STEP
    assert not any(history.to_document()["points"]["sent"])


def database(name: str, backlog: int, lag_ms: int, *, failing: bool = False) -> DatabaseStatus:
    return DatabaseStatus(
        name, "postgres", "db", "error" if failing else "ok", "refused" if failing else None, None, 0, None,
        mappings=(MappingStatus("users", 1, 2, backlog, lag_ms, NOW),),
    )  # fmt: skip


@pytest.fixture
def summary() -> Summary:
    """10,000 tenancies: the backlog grows with the number, the lag shrinks; every hundredth can't be read."""
    tenancies = {uuid.UUID(int=n): (database(f"db{n}", n, 10_000 - n, failing=n % 100 == 0),) for n in range(1, 10_001)}
    return Summary(Status(NOW, Fuses(True, True), {}, QueueSummary(0, 0, 0, 0, None), tenancies))


def test_ten_thousand_tenancies(summary: Summary) -> None:
    first = summary.find_page("", 1, "backlog")
    assert (first["total"], first["pages"], len(first["rows"])) == (10_000, 200, PAGE)
    assert [row["backlog"] for row in first["rows"][:2]] == [10_000, 9_999]
    assert summary.find_page("", 2, "lag")["rows"][0]["backlog"] == PAGE + 1
    assert summary.find_page("", 10**6, "backlog")["page"] == 200
    assert [row["backlog"] for row in summary.find_page(" DB777 ", 1, "backlog")["rows"]][-1] == 777
    assert summary.find_page("nothing", 1, "backlog") == {"total": 0, "page": 1, "pages": 1, "rows": []}
    assert summary.totals["backlog"] == 50_005_000

    failing = Failure(uuid.UUID(int=100), "db100", 3, NOW, "refused", "x", NOW)
    dead = Failure(uuid.UUID(int=5), "db5", 12, NOW, "given up", "x", None, "users")
    paused = Failure(uuid.UUID(int=6), "db6", 1, NOW, "refused", "x", None)
    pause = Pause(uuid.UUID(int=6), None, None, "moves", "ada", NOW)
    steering = Steering(Fuses(True, False), NOW, QueueSummary(1, 0, 0, 1, 5), [pause], [failing, dead, paused])
    document = board_document(steering, summary)
    assert (document["trouble"]["total"], len(document["trouble"]["rows"])) == (100, PAGE)
    assert document["trouble"]["rows"][0]["attempts"] == 3
    assert [row["database"] for row in document["dead"]["rows"]] == ["db5"]
    assert document["status"]["tenancies"]["total"] == 10_000
    assert board_document(steering, None)["status"] is None


async def read_events(events: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await anext(events) for _ in range(count)]


def test_one_reading_for_all_and_none_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    site: Any = None  # nothing is asked of it here
    readings = 0

    def read(self: live.Live) -> dict[str, Any]:
        nonlocal readings
        readings += 1
        if readings == 3:
            raise ServiceError("away", code="away")
        return {"reading": readings}

    monkeypatch.setattr(live.Live, "_read", read)
    monkeypatch.setattr(live, "TICK", 0.01)

    async def watch() -> None:
        source = live.Live(site)
        streams = [source.watch(None) for _ in range(50)]
        seen = await asyncio.gather(*(read_events(stream, 4) for stream in streams))
        assert set(map(tuple, seen)) == {
            (b"retry: 2000\n\n", b'event: state\ndata: {"reading": 1}\n\n',
             b'event: state\ndata: {"reading": 2}\n\n',
             b'event: trouble\ndata: {"code": "away", "message": "away"}\n\n')
        }  # fmt: skip
        reading = source._reading  # pyright: ignore[reportPrivateUsage]
        assert reading is not None
        for stream in streams:
            await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        async with asyncio.timeout(10):
            await reading  # it ends by itself

        # Back again; then the session ends, then the server.
        assert [one async for one in source.watch(time.time() - 1)][-1].startswith(b"event: expired")
        stream = source.watch(None)
        await read_events(stream, 2)
        source.stop()
        async with asyncio.timeout(10):
            assert all([one.startswith(b"event: state") async for one in stream])

    asyncio.run(watch())
