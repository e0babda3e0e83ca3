"""The document of `status --json`, which `serve` answers with as well."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackctl.sync.status import DatabaseStatus, Status


def status_document(found: Status, captured: str) -> dict[str, Any]:
    return {
        "generated_at": found.generated_at,
        "change_capture": captured,
        "fuses": asdict(found.fuses),
        "pauses": [asdict(pause) for pause in found.pauses],
        **tables_document(found),
        "queue": asdict(found.queue),
        "tenancies": [
            {"tenancy": tenancy, "databases": [_database_document(database) for database in databases]}
            for tenancy, databases in found.tenancies.items()
        ],
    }


def tables_document(found: Status) -> dict[str, Any]:
    """The part about the sequencer."""
    return {
        "sequencer": {
            "tables": {name: asdict(table) for name, table in found.tables.items()},
            "missing_tables": found.missing_tables,
        }
    }


def _database_document(database: DatabaseStatus) -> dict[str, Any]:
    document = asdict(database)
    for copy in document["mappings"]:
        if (failure := copy["failure"]) is not None:
            names = ("attempts", "failing_since", "error", "code", "next_attempt_at")
            copy["failure"] = {name: failure[name] for name in names}
    return document
