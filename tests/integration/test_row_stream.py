"""Rows as tuples, by either way of reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from stackctl.sync.engine.narrow_rows import NARROW
from stackctl.sync.engine.prefetch import Prefetch
from stackctl.sync.engine.row_stream import Amount, RowStream
from stackctl.sync.targets.protocol import StreamFormat
from tests.backend import wait_until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.postgres.connect import Connection
    from tests.conftest import Connect

ROWS = """
SELECT n::int8, CASE WHEN n %% 3 = 0 THEN NULL ELSE repeat(chr(228), n * %(by)s) END, n %% 2, n / 3.0::float8, '100%%'
FROM generate_series(1, 1200) AS n
"""
TYPES = ("int8", "text", "int4", "float8", "text")


def test_a_repeatable_stream_has_the_same_rows(empty_db: str, connect: Callable[..., Connection]) -> None:
    """Narrow rows come first, in chunks of no more than is asked for; wide ones after them, and none is changed."""
    conn: Any = connect(empty_db, autocommit=True)
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for widest in (100, NARROW):
            asked = {"by": widest // 1000 + 1}

            def read(*, repeatable: bool, asked: dict[str, int] = asked) -> list[list[tuple[Any, ...]]]:
                amount = Amount("sqlite", wide=NARROW * 4)
                heard: list[int] = []
                stream = RowStream(conn, ROWS, asked, "m", TYPES, amount, heard.append, repeatable=repeatable)
                chunks = list(stream.read_chunks(100))
                assert sum(heard) == amount.rows == 1200
                return chunks

            copied, chunks = read(repeatable=False), read(repeatable=True)
            assert max(map(len, chunks)) <= 100
            rows = [row for chunk in chunks for row in chunk]
            assert sorted(rows) == sorted(row for chunk in copied for row in chunk)
            if psycopg.capabilities.has_stream_chunked():
                wide = [len(row[1] or "") * 2 + 40 > NARROW for row in rows]
                assert wide == sorted(wide)
                assert any(wide) == (widest > 100)


def test_a_read_ahead_that_hangs_on_a_lock_is_broken_off(empty_db: str, connect: Connect) -> None:
    """Whoever gives it up does not wait for whoever holds the table, and may use the connection."""
    conn: Any = connect(empty_db, autocommit=True)
    conn.execute("CREATE TABLE held ()")
    holder = connect(empty_db)
    holder.execute("LOCK TABLE held")
    stream = RowStream(conn, "SELECT 1 FROM held", {}, "m", ("int4",), Amount("postgres"))
    ahead = Prefetch(stream, StreamFormat(lambda rows: rows.read_binary()))
    wait_until_blocked(connect(empty_db, autocommit=True), "%")
    ahead.discard()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    holder.rollback()
