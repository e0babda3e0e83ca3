"""The two fuses that switch stages of the pipeline off for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from datetime import datetime

    from stackctl.postgres.connect import Connection

FuseName = Literal["sequencer", "poller"]

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Fuses:
    """Whether each stage may work; both may when the database says nothing."""

    sequencer: bool
    poller: bool


def read_fuses(conn: Connection) -> Fuses:
    row = conn.execute(_SQL["read_fuses"]).fetchone()
    assert row is not None
    return Fuses(*row)


def read_switched_at(conn: Connection) -> datetime | None:
    """When one of them was last switched; None: never. The backend's table does not say by whom."""
    row = conn.execute(_SQL["read_switched_at"]).fetchone()
    assert row is not None  # an aggregate has a row
    return row[0]


def switch_fuse(conn: Connection, name: FuseName, *, on: bool) -> Fuses:
    """Switch one fuse, atomically; returns both as they now are."""
    with conn.transaction():
        conn.execute(_SQL["switch_sequencer" if name == "sequencer" else "switch_poller"], {"on": on})
        return read_fuses(conn)
