"""What only a database can tell. Nothing of the migrations is executed, and nothing is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, cast

from psycopg import errors, sql

from stackctl.core.sentences import format_count
from stackctl.migrate import files
from stackctl.migrate.parser.definitions import find_not_null_columns
from stackctl.migrate.parser.token_reader import tokenize
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from stackctl.migrate.parser.facts import DataType
    from stackctl.migrate.parser.token_reader import QualifiedName
    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__)

TINY = 1024 * 1024  # bytes; whatever is done to such a table is done in a moment

# PL/pgSQL gives these another meaning than SQL does.
_UNCHECKABLE = re.compile(
    r"\s*(?:\(|(?:FETCH|MOVE|OPEN|CLOSE|EXECUTE|PREPARE|BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE)\b"
    r"|(?:SELECT|WITH)\b.*\bINTO\b)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class TableSize:
    """How large a table is: rows as the planner estimates them (None: never analyzed), and bytes."""

    rows: int | None
    bytes: int

    @property
    def tiny(self) -> bool:
        return self.bytes <= TINY

    @property
    def described(self) -> str:
        shown = f"{self.bytes / 1024**2:,.1f} MB" if self.bytes < 1024**3 else f"{self.bytes / 1024**3:,.1f} GB"
        return shown if self.rows is None else f"about {format_count(self.rows, 'row', 'rows')}, {shown}"


@dataclass(frozen=True)
class ServerSyntaxError:
    """`at`: offset in the statement, in characters."""

    message: str
    at: int


class DatabaseFacts:
    """Questions to one database; what it does not have is answered with None or False."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        conn.execute("SET default_transaction_read_only = on")
        self.server_version = conn.info.server_version // 10000

    def read_size(self, table: QualifiedName) -> TableSize | None:
        """The table with its partitions."""
        row = self._fetch("table_size", schema=table.schema, table=table.name)
        return TableSize(None if row[2] else row[0], row[1]) if row else None

    def is_partitioned(self, table: QualifiedName) -> bool | None:
        row = self._fetch("is_partitioned", schema=table.schema, table=table.name)
        return row[0] if row else None

    def is_never_null(self, table: QualifiedName, column: str) -> bool:
        """NOT NULL is set, or a validated check says the same."""
        key = {"schema": table.schema, "table": table.name, "column": column}
        row = self._fetch("not_null", **key)
        if row is None:
            return False
        checked = any(column in find_not_null_columns(tokenize(expression)) for expression in row[1])
        return checked or (row[0] and bool((self._fetch("is_not_null_validated", **key) or (False,))[0]))

    def is_volatile(self, function: str) -> bool | None:
        """`function` as it is called, folded: `f` or `schema.f`."""
        schema, _, name = function.rpartition(".")
        row = self._fetch("is_volatile", schema=schema or None, name=name)
        return row[0] if row else None

    def is_strict_domain(self, type_: QualifiedName) -> bool:
        """A domain that asks something of its values, or gives each a volatile default."""
        row = self._fetch("is_strict_domain", schema=type_.schema, name=type_.name)
        return bool(row and row[0])

    def has_index(self, table: QualifiedName, columns: tuple[str, ...]) -> bool:
        """A whole one that begins with these columns, in whatever order."""
        row = self._fetch("has_index", schema=table.schema, table=table.name, columns=list(columns))
        return bool(row and row[0])

    def is_stored_alike(self, table: QualifiedName, column: str, new: DataType) -> bool:
        """The column's rows need not be rewritten, nor read, to become of that type."""
        row = self._fetch("column_type", schema=table.schema, table=table.name, column=column, new=new.text)
        if row is None:
            return False
        old, typmod, wanted, coercible = row
        if new.base.endswith("[]") or (old != wanted and not coercible):
            return False
        if not new.modifier:
            # bpchar loses its padding; every other type without a modifier takes what it finds.
            return wanted != "bpchar" and old != "bpchar"
        return _is_wider(wanted, typmod if old in (wanted, "varchar") else -1, new.modifier)

    def find_syntax_error(self, statement: str) -> ServerSyntaxError | None:
        """What the server's parser says of the statement, which it does not run."""
        # Any name will do; of the same length, it keeps the places.
        text = statement.replace(files.SCHEMA_SENTINEL, f'"{"s" * (len(files.SCHEMA_SENTINEL) - 2)}"')
        if _UNCHECKABLE.match(text):
            return None
        tag = "$stackctl$"
        while tag in text:
            tag = f"{tag[:-1]}_$"
        opening = f"DO {tag} BEGIN RETURN; "
        try:
            self._conn.execute(sql.SQL(cast("LiteralString", f"{opening}{text}\n; END {tag}")))
        except errors.SyntaxError as error:
            at = int(error.diag.statement_position or 1) - 1 - len(opening)
            return ServerSyntaxError(error.diag.message_primary or "syntax error", max(0, min(at, len(statement) - 1)))
        return None

    def _fetch(self, statement: str, **values: str | list[str] | None) -> tuple[Any, ...] | None:
        """The row of a named statement."""
        return self._conn.execute(_SQL[statement], values).fetchone()


def _is_wider(type_: str, typmod: int, modifier: str) -> bool:
    """Whether the modifier allows at least what the old one did, in the same bytes."""
    numbers = [int(number) for number in re.findall(r"\d+", modifier)]
    if typmod == -1 or not numbers:
        return False
    match type_:
        case "varchar":
            return numbers[0] >= typmod - 4
        case "varbit":
            return numbers[0] >= typmod
        case "numeric":
            precision, scale = (typmod - 4) >> 16 & 0xFFFF, (typmod - 4) & 0x7FF
            return numbers[0] >= precision and (numbers[1:] or [0])[0] == scale
        case "timestamp" | "timestamptz" | "time" | "timetz":
            return numbers[0] >= typmod
        case _:
            return False
