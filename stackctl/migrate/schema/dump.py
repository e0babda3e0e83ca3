"""A schema as SQL: the same text for the same schema, and the same schema again from the text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import sql

from stackctl.migrate.schema.catalog import (
    list_tables,
    read_catalog,
    read_dependencies,
    read_needed_schemas,
    unquote_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import psycopg

    from stackctl.migrate.schema.catalog import Catalog, Column, Grant, Relation, Type
    from stackctl.migrate.schema.catalog import Sequence as SequenceOf

Connection: TypeAlias = "psycopg.Connection[Any]"

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_ENABLED = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


def dump_schema(conn: Connection, schema: str) -> str:
    """The schema as SQL that psql can load into an empty database, on a connection in autocommit mode.

    Extensions, types, sequences, functions, tables, views, indexes, foreign keys, triggers, policies and grants, each
    kind by name as far as what needs what allows. No data, no owners, no oids. Another schema that something in this
    one needs comes first, whole. It is the schema of one moment, whatever others commit meanwhile.
    """
    tables = [sql.Identifier(*names) for name in _sort_by_need(conn, schema) for names in list_tables(conn, name)]
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if tables:
            # The server's functions that write definitions look past the snapshot. With the tables held before it
            # begins, they find what it shows.
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(tables)))
        # Those that the server itself quotes where they are names.
        words = conn.execute("SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'").fetchall()
        reserved = frozenset(word for (word,) in words)
        needs = read_dependencies(conn)
        schemas = [_Writer(read_catalog(conn, name), reserved).write(needs) for name in _sort_by_need(conn, schema)]
    return "\n\n".join(schemas) + "\n"


def _sort_by_need(conn: Connection, schema: str) -> list[str]:
    """The schema after those that it needs."""
    seen: set[str] = set()
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in read_needed_schemas(conn, name):
                visit(other)
            order.append(name)

    visit(schema)
    return order


class _Writer:
    def __init__(self, catalog: Catalog, reserved: frozenset[str]) -> None:
        self._catalog = catalog
        self._reserved = reserved

    def write(self, needs: Sequence[tuple[int, int]]) -> str:
        parts = [
            self._opening(),
            *self._objects(needs),
            *_join_statements(self._sequence_owners()),
            *_join_statements(index.definition for index in self._catalog.indexes),
            *_join_statements(self._foreign_keys()),
            *_join_statements(self._triggers()),
            *_join_statements(self._policies()),
            *_join_statements(self._grants()),
        ]
        return "\n\n".join(parts)

    def _name(self, name: str) -> str:
        if _PLAIN.fullmatch(name) and name not in self._reserved:
            return name
        return sql.Identifier(name).as_string()

    def _opening(self) -> str:
        schema = self._name(self._catalog.schema)
        lines = [f"SET search_path = {schema};"]
        if schema != "public":  # every new database has that one
            lines.insert(0, f"CREATE SCHEMA IF NOT EXISTS {schema};")
        # A body may name what comes further down.
        lines.append("SET check_function_bodies = off;")
        for name, home in self._catalog.extensions:
            if home not in ("public", "pg_catalog", self._catalog.schema):
                lines.append(f"CREATE SCHEMA IF NOT EXISTS {self._name(home)};")
            lines.append(f"CREATE EXTENSION IF NOT EXISTS {self._name(name)} WITH SCHEMA {self._name(home)};")
        return "\n".join(lines)

    def _objects(self, needs: Sequence[tuple[int, int]]) -> Iterator[str]:
        """What can need each other, each after what it needs, otherwise by kind and name."""
        texts: dict[int, str] = {type_.oid: self._type(type_) for type_ in self._catalog.types.values()}
        texts |= {s.oid: self._sequence(s) for s in self._catalog.sequences.values() if not s.identity}
        texts |= {routine.oid: f"{routine.definition.rstrip()};" for routine in self._catalog.routines}
        for relation in self._catalog.relations.values():
            texts[relation.oid] = self._table(relation) if relation.is_table else self._view(relation)
        needed: dict[int, list[int]] = {}
        for object_, other in needs:
            if object_ in texts and other in texts:
                needed.setdefault(object_, []).append(other)
        for relation in self._catalog.relations.values():
            parents = {unquote_name(parent) for parent in relation.parents}
            above = [other.oid for name, other in self._catalog.relations.items() if name in parents]
            needed.setdefault(relation.oid, []).extend(above)
        rank = {oid: place for place, oid in enumerate(texts)}
        done: set[int] = set()

        def visit(oid: int) -> Iterator[str]:
            if oid not in done:
                done.add(oid)
                for other in sorted(needed.get(oid, ()), key=rank.__getitem__):
                    yield from visit(other)
                yield texts[oid]

        for oid in texts:
            yield from visit(oid)

    def _type(self, type_: Type) -> str:
        name = self._name(type_.name)
        match type_.kind:
            case "e":
                labels = ",\n".join(f"  {_literal(label)}" for label in type_.labels)
                return f"CREATE TYPE {name} AS ENUM (\n{labels}\n);"
            case "d":
                return f"CREATE DOMAIN {name} AS {type_.definition};"
            case "r":
                return f"CREATE TYPE {name} AS RANGE ({type_.definition});"
            case _:
                return f"CREATE TYPE {name} AS ({type_.definition or ''});"

    def _sequence(self, sequence: SequenceOf) -> str:
        return f"CREATE SEQUENCE {self._name(sequence.name)} AS {sequence.type}{_format_sequence_options(sequence)};"

    def _table(self, table: Relation) -> str:
        identities = {
            s.owner_column: s for s in self._catalog.sequences.values() if s.identity and s.owner_table == table.name
        }
        head = f"CREATE {'UNLOGGED ' if table.unlogged else ''}TABLE {self._name(table.name)}"
        tail = f" WITH ({', '.join(table.options)})" if table.options else ""
        if table.partition_key:
            tail = f" PARTITION BY {table.partition_key}{tail}"
        constraints = [
            f"  CONSTRAINT {self._name(c.name)} {c.definition}"
            for c in self._catalog.constraints
            if c.table == table.name and c.kind != "f" and not c.inherited and not c.definition.endswith(" NOT VALID")
        ]
        late = [
            f"\nALTER TABLE {self._name(table.name)} ADD CONSTRAINT {self._name(c.name)} {c.definition};"
            for c in self._catalog.constraints
            if c.table == table.name and c.kind == "c" and not c.inherited and c.definition.endswith(" NOT VALID")
        ]
        if table.partition_bound is not None:
            body = f" PARTITION OF {table.parents[0]}"
            if constraints:
                body += " (\n" + ",\n".join(constraints) + "\n)"
            text = f"{head}{body} {table.partition_bound}{tail};"
        else:
            columns = [f"  {self._column(c, identities)}" for c in table.columns.values() if c.is_local]
            inherits = f" INHERITS ({', '.join(table.parents)})" if table.parents else ""
            elements = ",\n".join([*columns, *constraints])
            text = f"{head} (\n{elements}\n){inherits}{tail};" if elements else f"{head} (){inherits}{tail};"
        return text + "".join(late) + self._row_security(table)

    def _row_security(self, table: Relation) -> str:
        text = f"\nALTER TABLE {self._name(table.name)} ENABLE ROW LEVEL SECURITY;" if table.row_security else ""
        if table.force_row_security:
            text += f"\nALTER TABLE {self._name(table.name)} FORCE ROW LEVEL SECURITY;"
        return text

    def _column(self, column: Column, identities: Mapping[str | None, SequenceOf]) -> str:
        text = f"{self._name(column.name)} {column.type}"
        if column.collation:
            text += f" COLLATE {column.collation}"
        if column.not_null:
            text += " NOT NULL"
        if column.identity:
            counting = _format_sequence_options(identities[column.name]).strip()
            when = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
            text += f" GENERATED {when} AS IDENTITY" + (f" ({counting})" if counting else "")
        elif column.generated:
            text += f" GENERATED ALWAYS AS ({column.expression}) {'STORED' if column.generated == 's' else 'VIRTUAL'}"
        elif column.expression is not None:
            text += f" DEFAULT {column.expression}"
        return text

    def _view(self, view: Relation) -> str:
        kind = "MATERIALIZED VIEW" if view.kind == "m" else "VIEW"
        options = f" WITH ({', '.join(view.options)})" if view.options else ""
        query = (view.query or "").rstrip(";")
        return f"CREATE {kind} {self._name(view.name)}{options} AS\n{query};"

    def _sequence_owners(self) -> Iterator[str]:
        for sequence in self._catalog.sequences.values():
            if sequence.owner_table is not None and sequence.owner_column is not None and not sequence.identity:
                owner = f"{self._name(sequence.owner_table)}.{self._name(sequence.owner_column)}"
                yield f"ALTER SEQUENCE {self._name(sequence.name)} OWNED BY {owner}"

    def _foreign_keys(self) -> Iterator[str]:
        for key in self._catalog.constraints:
            if key.kind == "f" and not key.inherited:
                yield f"ALTER TABLE {self._name(key.table)} ADD CONSTRAINT {self._name(key.name)} {key.definition}"

    def _triggers(self) -> Iterator[str]:
        for trigger in self._catalog.triggers:
            yield trigger.definition
            if trigger.enabled in _ENABLED:
                how = _ENABLED[trigger.enabled]
                yield f"ALTER TABLE {self._name(trigger.table)} {how} TRIGGER {self._name(trigger.name)}"

    def _policies(self) -> Iterator[str]:
        for policy in self._catalog.policies:
            yield f"CREATE POLICY {self._name(policy.name)} ON {self._name(policy.table)} {policy.definition}"

    def _grants(self) -> Iterator[str]:
        """Only what differs from how PostgreSQL makes things."""
        usual = {
            (routine_kind, grant.name)
            for grant in self._catalog.grants
            for routine_kind in ("FUNCTION", "PROCEDURE")
            if grant.kind == routine_kind and grant.usual
        }
        for kind, name in self._routines():
            if (kind, name) not in usual:
                yield f"REVOKE ALL ON {kind} {name} FROM PUBLIC"
        rights: dict[tuple[str, str, str, bool], list[str]] = {}
        for grant in self._catalog.grants:
            if not grant.usual:
                rights.setdefault((grant.kind, grant.name, grant.grantee, grant.grantable), []).append(
                    _format_privilege(grant)
                )
        for (kind, name, grantee, grantable), privileges in rights.items():
            option = " WITH GRANT OPTION" if grantable else ""
            yield f"GRANT {', '.join(privileges)} ON {kind} {name} TO {grantee}{option}"

    def _routines(self) -> Iterator[tuple[str, str]]:
        for routine in self._catalog.routines:
            yield "PROCEDURE" if routine.kind == "p" else "FUNCTION", routine.identity


def _join_statements(statements: Iterable[str]) -> Iterator[str]:
    text = "\n".join(f"{statement};" for statement in statements)
    if text:
        yield text


def _format_sequence_options(sequence: SequenceOf) -> str:
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


def _format_privilege(grant: Grant) -> str:
    return f"{grant.privilege} ({grant.column})" if grant.column else grant.privilege


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
