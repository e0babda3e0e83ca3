"""What the board shows: trouble first, and of everything that may be long, the worst."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from stackctl.sync.queue import entries, fuses, pauses, retries
from stackctl.sync.status_document import tables_document

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from stackctl.postgres.connect import Connection
    from stackctl.sync.queue.pauses import Pause
    from stackctl.sync.queue.retries import Failure
    from stackctl.sync.status import DatabaseStatus, Status

PAGE = 50  # rows

Order = Literal["backlog", "lag"]


@dataclass(frozen=True)
class Steering:
    """What is quickly read, however many tenancies there are."""

    fuses: fuses.Fuses
    switched_at: datetime | None
    queue: entries.QueueSummary
    pauses: list[Pause]
    failures: list[Failure]


def read_steering(conn: Connection) -> Steering:
    return Steering(
        fuses.read_fuses(conn),
        fuses.read_switched_at(conn),
        entries.summarize_queue(conn),
        pauses.list_pauses(conn),
        retries.list_failures(conn),
    )


@dataclass(frozen=True)
class Summary:
    """One status, summed up; made once, and asked by all viewers."""

    found: Status

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row a tenancy, worst first."""
        rows = [_tenancy_row(tenancy, databases) for tenancy, databases in self.found.tenancies.items()]
        return sorted(rows, key=_by_backlog)

    @cached_property
    def rejected(self) -> list[dict[str, Any]]:
        """The rejected rows of all databases, the newest first."""
        found = [
            {"tenancy": tenancy, "database": one.database} | asdict(row)
            for tenancy, databases in self.found.tenancies.items()
            for one in databases
            for row in one.refused
        ]
        return sorted(found, key=lambda row: row["refused_at"], reverse=True)

    @cached_property
    def totals(self) -> dict[str, Any]:
        return {
            "tenancies": len(self.rows),
            "databases": sum(len(row["databases"]) for row in self.rows),
            "backlog": sum(row["backlog"] for row in self.rows),
            "lag_ms": max((row["lag_ms"] or 0 for row in self.rows), default=0),
        }

    def find_page(self, search: str, page: int, order: Order) -> dict[str, Any]:
        """One page of the tenancies whose id, or a database's id or type, has `search` in it."""
        wanted = search.strip().casefold()
        rows = [row for row in self.rows if wanted in row["searched"]]
        if order == "lag":
            rows.sort(key=_by_lag)
        pages = max(-(-len(rows) // PAGE), 1)
        page = min(page, pages)
        shown = rows[(page - 1) * PAGE : page * PAGE]
        return {
            "total": len(rows),
            "page": page,
            "pages": pages,
            "rows": [{name: value for name, value in row.items() if name != "searched"} for row in shown],
        }


def board_document(steering: Steering, summary: Summary | None) -> dict[str, Any]:
    """Everything of the page that is the same for all viewers; without a summary, what is quickly read alone."""
    trouble = _list_trouble(steering, summary.found if summary else None)
    dead = [row for row in trouble if row["dead"]]
    document = {
        "fuses": asdict(steering.fuses),
        "switched_at": steering.switched_at,
        "pauses": _cut([asdict(pause) for pause in steering.pauses]),
        "queue": asdict(steering.queue),
        "trouble": _cut([row for row in trouble if not row["dead"]]),
        "dead": _cut(dead),
        "status": None,
    }
    if summary is not None:
        document["status"] = {
            "generated_at": summary.found.generated_at,
            "totals": summary.totals,
            "tenancies": summary.find_page("", 1, "backlog"),
            "rejected": _cut(summary.rejected),
        } | tables_document(summary.found)
    return document


def _list_trouble(steering: Steering, found: Status | None) -> list[dict[str, Any]]:
    """What fails and is not paused, the longest first; then what can't be read, and was not tried yet."""
    failing = [
        one for one in steering.failures
        if pauses.find_pause(steering.pauses, one.tenancy, one.database, one.mapping) is None
    ]  # fmt: skip
    names = ("tenancy", "database", "mapping", "error", "code", "failing_since", "attempts", "next_attempt_at")
    rows = [{name: getattr(one, name) for name in names} | {"dead": one.dead} for one in failing]
    known = {(one.tenancy, one.database) for one in failing}
    for tenancy, databases in (found.tenancies if found else {}).items():
        for one in databases:
            # Of a failure that was recorded then and is not any more, the status has not heard yet.
            if one.status == "error" and one.attempts == 0 and (tenancy, one.database) not in known:
                row = {"tenancy": tenancy, "database": one.database, "error": one.error, "attempts": 0}
                rows.append(dict.fromkeys(names) | row | {"dead": False})
    return rows


def _tenancy_row(tenancy: UUID, databases: Iterable[DatabaseStatus]) -> dict[str, Any]:
    lines: list[dict[str, Any]] = [
        {
            "database": one.database,
            "type": one.type,
            "connection": one.connection,
            "status": one.status,
            "busy": one.busy,
            "backlog": sum(copy.backlog + copy.resend_left for copy in one.mappings),
            "lag_ms": max((copy.lag_ms or 0 for copy in one.mappings), default=0),
            "updated_at": max((copy.updated_at for copy in one.mappings if copy.updated_at is not None), default=None),
        }
        for one in databases
    ]
    return {
        "tenancy": tenancy,
        "databases": lines,
        "backlog": sum(line["backlog"] for line in lines),
        "lag_ms": max((line["lag_ms"] for line in lines), default=0),
        "searched": " ".join([str(tenancy), *(f"{line['database']} {line['type']}" for line in lines)]).casefold(),
    }


def _by_backlog(row: dict[str, Any]) -> tuple[int, int, str]:
    return -row["backlog"], -row["lag_ms"], str(row["tenancy"])


def _by_lag(row: dict[str, Any]) -> tuple[int, int, str]:
    return -row["lag_ms"], -row["backlog"], str(row["tenancy"])


def _cut(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"total": len(rows), "rows": rows[:PAGE]}
