"""What stands in schema stackctl under the name of the history: our table, nothing, or something of somebody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import dict_row

from stackctl.core.errors import ServiceError, StateError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from stackctl.migrate.runner.session import Connection

_SQL = load_statements(__file__, "runner")

# As the server names their types.
_COLUMNS = {
    "target_schema": "text",
    "name": "text",
    "checksum": "text",
    "started_at": "timestamp with time zone",
    "applied_at": "timestamp with time zone",
    "applied_by": "text",
    "duration_ms": "bigint",
    "repeats": "integer",
    "pieces_done": "integer",
    "outside_piece": "integer",
}
_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "S": "a sequence",
    "c": "a type",
    "f": "a foreign table",
    "i": "an index",
    "I": "an index",
}


@dataclass(frozen=True)
class HistoryTable:
    """Our table, whose it is, and whether `role`, which asks, may write into it and delete from it."""

    name: str
    owner: str
    role: str
    writable: bool
    deletable: bool

    def require_writable(self, *, deleting: bool = False) -> None:
        """Raises ServiceError (`permission-denied`) with the GRANT that is missing."""
        if self.writable and (self.deletable or not deleting):
            return
        table, role = sql.Identifier("stackctl", self.name), sql.Identifier(self.role)
        grant = sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}").format(table, role).as_string()
        raise ServiceError(
            f"role {self.role} may not write stackctl.{self.name}, which belongs to {self.owner}",
            code="permission-denied",
            hint=f"migrate as {self.owner}, or let that role run: {grant}",
        )


def find_history_table(conn: Connection, name: str) -> HistoryTable | None:
    """None where there is none. Raises StateError (`history-not-ours`) for what stackctl did not make."""
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_SQL["describe_history"], {"table": name}).fetchone()
    if found is None:
        return None
    if problem := _find_problem(found):
        raise StateError(
            f"stackctl.{name} {problem}: stackctl did not make it so",
            code="history-not-ours",
            hint="put back the table as it was; or, if it never was stackctl's, rename it, and say with"
            " stackctl migrate adopt --through VERSION what is applied",
        )
    return HistoryTable(name, found["owner"], found["role"], found["writable"], found["deletable"])


def _find_problem(found: dict[str, Any]) -> str | None:
    if found["kind"] not in ("r", "p"):
        return f"is {_KINDS.get(found['kind'], 'no table')}"
    types: dict[str, str] = found["types"]
    if missing := [name for name in _COLUMNS if name not in types]:
        return f"lacks the columns {', '.join(missing)}" if len(missing) > 1 else f"lacks the column {missing[0]}"
    for name, wanted in _COLUMNS.items():
        if types[name] != wanted:
            return f"has {name} as {types[name]} instead of {wanted}"
    if unknown := [name for name in found["required"] if name not in _COLUMNS]:
        return f"wants a value in {', '.join(unknown)}"
    return None if found["keyed"] else "has no unique key of target_schema and name"
