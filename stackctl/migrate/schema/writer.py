"""What makes each thing of a schema, as statements without their semicolon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from stackctl.migrate.schema.catalog import Catalog, Column, Comment, Grant, Relation, Type
    from stackctl.migrate.schema.catalog import Sequence as SequenceOf

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


class SchemaWriter:
    """Statements for what a catalog holds. `reserved`: words that are quoted where they are names."""

    def __init__(self, catalog: Catalog, reserved: frozenset[str]) -> None:
        self._catalog = catalog
        self._reserved = reserved
        self._identities = {(s.owner_table, s.owner_column): s for s in catalog.sequences.values() if s.identity}

    def quote_name(self, name: str) -> str:
        if _PLAIN.fullmatch(name) and name not in self._reserved:
            return name
        return sql.Identifier(name).as_string()

    def write_type(self, type_: Type) -> str:
        name = self.quote_name(type_.name)
        match type_.kind:
            case "e":
                labels = ",\n".join(f"  {quote_literal(label)}" for label in type_.labels)
                return f"CREATE TYPE {name} AS ENUM (\n{labels}\n)"
            case "d":
                return f"CREATE DOMAIN {name} AS {type_.definition}"
            case "r":
                return f"CREATE TYPE {name} AS RANGE ({type_.definition})"
            case _:
                return f"CREATE TYPE {name} AS ({type_.definition or ''})"

    def write_sequence(self, sequence: SequenceOf) -> str:
        return f"CREATE SEQUENCE {self.quote_name(sequence.name)} AS {sequence.type}{format_sequence_options(sequence)}"

    def write_table(self, table: Relation) -> tuple[str, ...]:
        head = f"CREATE {'UNLOGGED ' if table.unlogged else ''}TABLE {self.quote_name(table.name)}"
        tail = f" WITH ({', '.join(table.options)})" if table.options else ""
        if table.partition_key:
            tail = f" PARTITION BY {table.partition_key}{tail}"
        constraints = [
            f"  CONSTRAINT {self.quote_name(c.name)} {c.definition}"
            for c in self._catalog.constraints
            if c.table == table.name and c.kind != "f" and not c.inherited and not c.definition.endswith(" NOT VALID")
        ]
        late = [
            f"ALTER TABLE {self.quote_name(table.name)} ADD CONSTRAINT {self.quote_name(c.name)} {c.definition}"
            for c in self._catalog.constraints
            if c.table == table.name and c.kind == "c" and not c.inherited and c.definition.endswith(" NOT VALID")
        ]
        if table.partition_bound is not None:
            body = f" PARTITION OF {table.parents[0]}"
            if constraints:
                body += " (\n" + ",\n".join(constraints) + "\n)"
            text = f"{head}{body} {table.partition_bound}{tail}"
        else:
            columns = [f"  {self.write_column(table.name, c)}" for c in table.columns.values() if c.is_local]
            inherits = f" INHERITS ({', '.join(table.parents)})" if table.parents else ""
            elements = ",\n".join([*columns, *constraints])
            text = f"{head} (\n{elements}\n){inherits}{tail}" if elements else f"{head} (){inherits}{tail}"
        switches = [word for word, on in (("ENABLE", table.row_security), ("FORCE", table.force_row_security)) if on]
        shown = self.quote_name(table.name)
        return text, *late, *(f"ALTER TABLE {shown} {word} ROW LEVEL SECURITY" for word in switches)

    def write_column(self, table: str, column: Column) -> str:
        text = f"{self.quote_name(column.name)} {column.type}"
        if column.collation:
            text += f" COLLATE {column.collation}"
        if column.not_null:
            text += " NOT NULL"
        if column.identity:
            counting = format_sequence_options(self._identities[table, column.name]).strip()
            when = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
            text += f" GENERATED {when} AS IDENTITY" + (f" ({counting})" if counting else "")
        elif column.generated:
            text += f" GENERATED ALWAYS AS ({column.expression}) {'STORED' if column.generated == 's' else 'VIRTUAL'}"
        elif column.expression is not None:
            text += f" DEFAULT {column.expression}"
        return text

    def write_view(self, view: Relation) -> str:
        kind = "MATERIALIZED VIEW" if view.kind == "m" else "VIEW"
        options = f" WITH ({', '.join(view.options)})" if view.options else ""
        query = (view.query or "").rstrip(";")
        return f"CREATE {kind} {self.quote_name(view.name)}{options} AS\n{query}"


def format_sequence_options(sequence: SequenceOf) -> str:
    """What differs from a sequence made without options."""
    sizes = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
    limit = sizes[sequence.type]
    up = sequence.increment > 0
    minimum, maximum = (1, limit - 1) if up else (-limit, -1)
    usual = (
        ("INCREMENT", sequence.increment, 1),
        ("MINVALUE", sequence.minimum, minimum),
        ("MAXVALUE", sequence.maximum, maximum),
        ("START", sequence.start, sequence.minimum if up else sequence.maximum),
        ("CACHE", sequence.cache, 1),
    )
    text = "".join(f" {word} {value}" for word, value, default in usual if value != default)
    return text + (" CYCLE" if sequence.cycle else "")


def format_comment(comment: Comment) -> str:
    on = f" ON {comment.relation}" if comment.relation else ""
    return f"COMMENT ON {comment.words} {comment.name}{on} IS {quote_literal(comment.text)}"


def format_privilege(grant: Grant) -> str:
    return f"{grant.privilege} ({grant.column})" if grant.column else grant.privilege


def quote_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
