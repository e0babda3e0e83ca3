"""The two fuses that switch stages of the pipeline off for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.postgres.statements import statements

if TYPE_CHECKING:
    from stackctl.postgres.connect import Connection

Name = Literal["sequencer", "poller"]

_SQL = statements(__file__)


@dataclass(frozen=True)
class Fuses:
    """Whether each stage may work; both may when the database says nothing."""

    sequencer: bool
    poller: bool


def read(conn: Connection) -> Fuses:
    row = conn.execute(_SQL["fuses"]).fetchone()
    assert row is not None
    return Fuses(*row)


def switch(conn: Connection, name: Name, *, on: bool) -> Fuses:
    """Switch one fuse, atomically; returns both as they now are."""
    with conn.transaction():
        conn.execute(_SQL["set_sequencer" if name == "sequencer" else "set_poller"], {"on": on})
        return read(conn)
