"""What a run tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EventKind = Literal[
    "waiting",
    "started",
    "resumed",
    "committed",
    "retrying",
    "rebuilding",
    "repeating",
    "applied",
    "elsewhere",
    "remark",
]


@dataclass(frozen=True)
class RepeatedPass:
    """One committed pass of a repeated piece.

    `rows`: changed by this pass; `total`: by all passes of this run (None: the server does not count them).
    `remaining`: what the statement's own column of that name said. `per_second`: rows, pauses included.
    """

    rows: int | None
    total: int | None
    remaining: int | None
    per_second: float

    @property
    def seconds_left(self) -> float | None:
        """None where no total is known."""
        if self.remaining is None or not self.per_second:
            return None
        return self.remaining / self.per_second


@dataclass(frozen=True)
class Event:
    """Something that happened, told after the commit that made it so. `detail` is for people."""

    kind: EventKind
    name: str | None = None
    detail: str = ""
    repeated_pass: RepeatedPass | None = None
