"""Whether a pooler sits in front of the server, and whether it lends sessions for a transaction each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.postgres.libpq import open_again

if TYPE_CHECKING:
    from stackctl.postgres.libpq import Connection


def is_behind_pooler(conn: Connection) -> bool:
    """Whether the server knows the session by another process than the one that was named to the connection."""
    return read_pid(conn) != conn.info.backend_pid


def find_shared_sessions(conn: Connection) -> str | None:
    """How it shows that a pooler lends sessions for a transaction each; None where a connection keeps its own.

    Whoever sits between names a process of its own at the start. That alone is no harm: session pooling is fine. But
    two connections of ours that are one session on the server, or one that is two, are not.
    """
    mine = read_pid(conn)
    if mine == conn.info.backend_pid:
        return None
    if read_pid(conn) != mine:
        return "one connection was given two sessions"
    with open_again(conn) as second:
        if read_pid(second) == mine:
            return "two connections were given one session"
    return "one connection was given two sessions" if read_pid(conn) != mine else None


def read_pid(conn: Connection) -> int:
    """The server's process of the session."""
    row = conn.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]
