"""The two fuses that switch stages of the pipeline off for everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
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


def switch_fuse(conn: Connection, name: FuseName, *, on: bool) -> Fuses:
    """Switch one fuse, atomically; returns both as they now are."""
    with conn.transaction():
        conn.execute(_SQL["switch_sequencer" if name == "sequencer" else "switch_poller"], {"on": on})
        return read_fuses(conn)
