"""What the board of `status --watch` says: looks at the pipeline become rates, and lines that fit a window.

Nothing here knows of a terminal or a clock.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from stackctl.cli.fuse.shared import describe_pause
from stackctl.core.durations import format_duration
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from stackctl.core.screen import Line
    from stackctl.sync.status import DatabaseStatus, MappingStatus, Status

KEPT = 200  # looks
RATE_SECONDS = 15.0  # over which a rate is taken
LONGEST_LEFT = 10 * 86400.0  # seconds; more says nothing
_WIDEST_TREND = 40
_LOW = 14  # lines; below, what says little is left out
_NARROW = 72  # columns; below, a tenancy is named by the beginning of its id
_MARGIN = 4  # columns before what belongs to a database
_BAD, _WARNING, _HEADING, _QUIET = "red", "yellow", "bold", "dim"

TO_STAMP, TO_SEND = "to stamp", "to send"
Key = str | tuple[UUID, str, str]  # of a whole, or of a tenancy's copy in a database


class History:
    """How many rows waited at the last looks: in all, and for each copy."""

    def __init__(self) -> None:
        self._looks: dict[Key, deque[tuple[float, int]]] = defaultdict(lambda: deque(maxlen=KEPT))

    def add(self, at: float, found: Status) -> None:
        """A look; `at` in seconds of a clock that only goes on. A database that tells nothing adds nothing."""
        sums = {TO_STAMP: sum(table.pending for table in found.tables.values()), TO_SEND: 0}
        for tenancy, databases in found.tenancies.items():
            for database in databases:
                for copy in database.mappings:
                    self._looks[tenancy, database.database, copy.mapping].append((at, count_behind(copy)))
                    sums[TO_SEND] += count_behind(copy)
        for name, rows in sums.items():
            self._looks[name].append((at, rows))

    def get_counts(self, key: Key) -> list[int]:
        """The rows of each look, the oldest first."""
        return [rows for _, rows in self._looks.get(key, ())]

    def compute_rate(self, key: Key) -> float | None:
        """By how many rows a second the number grows (or, below 0, falls); None with less than two looks."""
        looks = self._looks.get(key)
        if not looks or len(looks) < 2:
            return None
        last, rows = looks[-1]
        # The look before the last one counts in any case, however long ago it was.
        first, then = next(
            look for at, look in enumerate(looks) if last - look[0] <= RATE_SECONDS or at == len(looks) - 2
        )
        return (rows - then) / (last - first) if last > first else None

    def compute_left(self, key: Key) -> float | None:
        """Seconds until none is left, if it goes on like this; None where it does not fall."""
        rate, counts = self.compute_rate(key), self.get_counts(key)
        if rate is None or rate >= 0 or not counts[-1]:
            return None
        left = counts[-1] / -rate
        return left if left <= LONGEST_LEFT else None


def count_behind(copy: MappingStatus) -> int:
    """Rows that a copy waits for."""
    return copy.backlog + copy.resend_left


def draw_trend(counts: Sequence[int], width: int, *, blocks: bool) -> str:
    """The last counts as a line of bars, one a look, the highest filling its cell; none of 0 looks like some."""
    bars = "▁▂▃▄▅▆▇█" if blocks else "_.:-=+*#"
    shown = counts[-width:] if width > 0 else []
    highest = max(shown, default=0)
    return "".join(bars[0 if not rows else 1 + rows * (len(bars) - 2) // highest] for rows in shown)


def format_rate(rate: float | None) -> str:
    """`-1,200/s`, `+3/s`, `-0.4/s`; empty for none and for what stands still."""
    if rate is None or abs(rate) < 0.05:
        return ""
    return f"{rate:+,.0f}/s" if abs(rate) >= 10 else f"{rate:+.1f}/s"


@dataclass(frozen=True)
class _Group:
    """A database on the board: how bad it is (0 the worst), what its heading and remarks say, and its copies."""

    rank: int
    behind: int
    heading: Line
    remarks: list[Line]
    tenancy: UUID
    database: DatabaseStatus
    busy_copies: list[MappingStatus] = field(default_factory=list["MappingStatus"])


def compose_board(
    found: Status,
    history: History,
    *,
    width: int,
    height: int,
    now: datetime,
    interval: float,
    blocks: bool = True,
    trouble: str | None = None,
) -> list[Line]:
    """The lines of the board, as many as the window has at the most, trouble first.

    `trouble`: why there is no newer look than `found`.
    """  # fmt: skip
    head = list(
        _compose_head(
            found, history, width=width, height=height, now=now, interval=interval, blocks=blocks, trouble=trouble
        )
    )
    groups = sorted(
        (_compose_group(tenancy, database, width=width, now=now, blocks=blocks)
         for tenancy, databases in found.tenancies.items() for database in databases),
        key=lambda group: (group.rank, -group.behind),
    )  # fmt: skip
    room = height - len(head) - 1
    for everything, spaced in ((True, True), (True, False), (False, True), (False, False)):
        body = list(
            _compose_body(groups, history, width=width, now=now, blocks=blocks, everything=everything, spaced=spaced)
        )
        if len(body) <= room:
            break
    else:
        hidden = len(body) - max(room - 1, 0)
        body = [*body[: max(room - 1, 0)], (f"{hidden} more lines: a larger window or --tenancy shows them", _QUIET)]
    body = body or [("no external database is configured; see `tenancies:` in stackctl.yaml", None)]
    lines = [*head, *body][: max(height - 1, 1)]
    filled = [("", None)] * (height - 1 - len(lines))
    return [(_cut(text, width), style) for text, style in [*lines, *filled, ("q: quit", _QUIET)][:height]]


def _compose_head(
    found: Status,
    history: History,
    *,
    width: int,
    height: int,
    now: datetime,
    interval: float,
    blocks: bool,
    trouble: str | None,
) -> Iterator[Line]:
    age = max((now - found.generated_at).total_seconds(), 0)
    yield f"stackctl status  {now:%H:%M:%S} UTC" + (f"  every {interval:g} s" if width >= 50 else ""), _HEADING
    if trouble is not None:
        yield from _wrap(f"no news for {_format_age(age)}, trying on: {trouble}", width, _BAD)
    off = [name for name in ("sequencer", "poller") if not getattr(found.fuses, name)]
    if off:
        yield f"OFF: {', '.join(off)} (`stackctl fuse on {off[0]}`)", _BAD
    queue = found.queue
    oldest = [f"oldest {_format_age(queue.oldest_age_ms / 1000)}"] if queue.oldest_age_ms is not None else []
    counts = [f"{n:,} {name}" for n, name in ((queue.pending, "pending"), (queue.in_flight, "in flight"),
                                              (queue.stale, "stale"), (queue.dead, "dead")) if n]  # fmt: skip
    yield f"queue     {', '.join([*counts, *oldest]) or 'empty'}", _BAD if queue.dead else None
    trends = min(_WIDEST_TREND, width - 40)
    for name in (TO_STAMP, TO_SEND):
        rows = (history.get_counts(name) or [0])[-1]
        if not rows and height < _LOW:
            continue
        rate = history.compute_rate(name) if rows else None
        words = [f"{rows:,}", format_rate(rate), _format_left(history.compute_left(name))]
        start = f"{name:<9} {'  '.join(word for word in words if word)}"
        trend = draw_trend(history.get_counts(name), trends, blocks=blocks)
        yield (f"{start:<38}  {trend}" if trends > 5 else start), None
    if height >= _LOW:
        yield "", None


def _compose_group(tenancy: UUID, one: DatabaseStatus, *, width: int, now: datetime, blocks: bool) -> _Group:
    """How it is with one database."""
    failing = [copy for copy in one.mappings if copy.failure is not None and copy.paused is None]
    changed = [copy for copy in one.mappings if copy.change is not None]
    halted = [copy for copy in one.mappings if copy.paused is not None]
    behind = sum(map(count_behind, one.mappings))
    rank, word, style = (
        (0, "ERROR", _BAD) if one.status == "error"
        else (1, "needs a look", _WARNING) if one.refused or changed or one.unfed
        else (2, "paused", _WARNING) if one.status == "paused" or halted
        else (3, "busy", None) if one.busy is not None
        else (4, f"{behind:,} behind", None) if behind
        else (5, "up to date", _QUIET)
    )  # fmt: skip
    mark = ("✗!=…▸✓" if blocks else "X!=.>o")[rank]
    remarks: list[str] = []
    if one.error is not None and one.error not in [copy.failure.error for copy in failing if copy.failure]:
        remarks.append(one.error + _format_attempts(one.attempts, one.failing_since, one.next_attempt_at, now))
    for copy in failing:
        if (failure := copy.failure) is not None:
            tried = _format_attempts(failure.attempts, failure.failing_since, failure.next_attempt_at, now)
            remarks.append(f"{copy.mapping}: {failure.error}{tried}")
    if one.paused is not None:
        remarks.append(describe_pause(one.paused))
    elif halted:
        remarks.append(f"paused: {', '.join(copy.mapping for copy in halted)}")
    if one.busy is not None:
        remarks.append(one.busy)
    if one.refused:
        remarks.append(f"{format_count(len(one.refused), 'rejected row', 'rejected rows')}, "
                       f"the first in {one.refused[0].mapping}: {one.refused[0].error}")  # fmt: skip
    remarks += [f"{copy.mapping} has changed: {copy.change}" for copy in changed]
    if one.unfed:
        remarks.append(f"fed by no mapping: {', '.join(one.unfed)}")
    name = f"{mark} {one.database} ({one.type})"
    short = str(tenancy) if width >= _NARROW else str(tenancy)[:8]
    shown = f"{name}  {word}"
    heading = f"{shown}  {short}" if len(shown) + len(short) + 2 <= width else shown
    return _Group(
        rank=rank,
        behind=behind,
        heading=(heading, style or _HEADING),
        remarks=[line for text in remarks for line in _wrap(text, width, style, indent=" " * _MARGIN)],
        tenancy=tenancy,
        database=one,
        busy_copies=[copy for copy in one.mappings if count_behind(copy)],
    )


def _compose_body(
    groups: Sequence[_Group],
    history: History,
    *,
    width: int,
    now: datetime,
    blocks: bool,
    everything: bool,
    spaced: bool,
) -> Iterator[Line]:
    """The databases; all copies, or only those that wait for rows, and quiet databases as one line."""
    quiet = [] if everything else [group for group in groups if group.rank == 5]
    shown = [group for group in groups if group not in quiet]
    copies = [
        sorted(group.database.mappings, key=count_behind, reverse=True) if everything else group.busy_copies
        for group in shown
    ]
    rows = [(group, copy) for group, own in zip(shown, copies, strict=True) for copy in own]
    table = iter(_compose_table(rows, history, width=width, now=now, blocks=blocks))
    title = next(table)
    if rows:
        yield title, _QUIET
    for at, group in enumerate(shown):
        if spaced and at:
            yield "", None
        yield group.heading
        yield from group.remarks
        for copy in copies[at]:
            yield next(table), None if count_behind(copy) else _QUIET
    if quiet:
        yield f"{'✓' if blocks else 'o'} {format_count(len(quiet), 'database', 'databases')} up to date", _QUIET


def _compose_table(
    rows: Sequence[tuple[_Group, MappingStatus]], history: History, *, width: int, now: datetime, blocks: bool
) -> list[str]:
    """A title and a line a copy, with the columns that there is room for."""
    titles = ["copy", "behind", "rate", "left", "oldest", "synced"]
    cells = [titles]
    for group, copy in rows:
        key = (group.tenancy, group.database.database, copy.mapping)
        behind = count_behind(copy)
        synced = copy.updated_at if copy.cursor >= 0 else None
        cells.append([
            copy.mapping,
            f"{behind:,}",
            format_rate(history.compute_rate(key) if behind else None),
            _format_left(history.compute_left(key)).removesuffix(" left"),
            _format_age(copy.lag_ms / 1000) if copy.lag_ms is not None and behind else "",
            "never" if synced is None else f"{_format_age((now - to_aware(synced, now)).total_seconds())} ago",
        ])  # fmt: skip
    # The last columns go first, where there is no room for all.
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    while len(widths) > 2 and _MARGIN + sum(widths) + 2 * len(widths) > width + 2:
        widths.pop()
    used = _MARGIN + sum(widths) + 2 * (len(widths) - 1)
    lines = [
        "    "
        + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=False))])
        for row in cells
    ]
    if (room := min(width - used - 2, _WIDEST_TREND)) < 6:
        return lines
    trends = [
        draw_trend(history.get_counts((group.tenancy, group.database.database, copy.mapping)), room, blocks=blocks)
        for group, copy in rows
    ]
    return [f"{line}  {trend}".rstrip() for line, trend in zip(lines, ["trend", *trends], strict=True)]


def to_aware(time: datetime, now: datetime) -> datetime:
    """A target's time, which has no zone where the target knows none, and is UTC."""
    return time if time.tzinfo else time.replace(tzinfo=now.tzinfo)


def _format_attempts(attempts: int, since: datetime | None, following: datetime | None, now: datetime) -> str:
    if since is None:
        return ""
    left = None if following is None else (following - now).total_seconds()
    when = "given up" if left is None else f"next try in {_format_age(left)}" if left > 0 else "next try now"
    age = _format_age((now - since).total_seconds())
    return f" (failing for {age}, {format_count(attempts, 'attempt', 'attempts')}, {when})"


def _format_age(seconds: float) -> str:
    """Whole seconds, so that it does not flicker."""
    return f"{max(round(seconds), 0)} s" if seconds < 59.5 else format_duration(seconds)


def _format_left(seconds: float | None) -> str:
    return "" if seconds is None else f"{_format_age(seconds)} left"


def _wrap(text: str, width: int, style: str | None, indent: str = "") -> list[Line]:
    """A remark in at most two lines."""
    lines = textwrap.wrap(text, max(width - len(indent), 10), max_lines=2, placeholder=" …", break_on_hyphens=False)
    return [(indent + line, style) for line in lines]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
