"""A schema as SQL: the same text for the same schema, and the same schema again from the text."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import sql

from stackctl.migrate.schema.catalog import (
    list_tables,
    read_catalog,
    read_dependencies,
    read_needed_schemas,
    unquote_name,
)
from stackctl.migrate.schema.rows import write_rows
from stackctl.migrate.schema.writer import SchemaWriter, format_comment, format_privilege

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    from stackctl.migrate.schema.catalog import Catalog

Connection: TypeAlias = "psycopg.Connection[Any]"

_ENABLED = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


def dump_schema(conn: Connection, schema: str, *, rows: bool = False) -> str:
    """The schema as SQL that psql can load into an empty database, on a connection in autocommit mode.

    Extensions, types, sequences, functions, tables, views, indexes, foreign keys, triggers, policies, grants and
    comments, each kind by name as far as what needs what allows. No data, no owners, no oids. Another schema that
    something in this one needs comes first, whole. It is the schema of one moment, whatever others commit meanwhile.

    With `rows` it is a migration's: the rows and the sequences' positions are in it, and the schema goes unnamed.
    """
    with hold_schema(conn, schema):
        reserved = read_reserved_words(conn)
        needs = read_dependencies(conn)
        names = _sort_by_need(conn, schema)
        schemas = []
        for name in names:
            catalog = read_catalog(conn, name)
            dump = _Dump(catalog, reserved)
            filling = list(write_rows(conn, name, catalog, SchemaWriter(catalog, reserved))) if rows else []
            schemas.append(dump.write(needs, filling, movable=rows and len(names) == 1))
    return "\n\n".join(schemas) + "\n"


@contextmanager
def hold_schema(conn: Connection, schema: str) -> Iterator[None]:
    """Inside, what is read of the schema and of those that it needs is that of one moment."""
    tables = [sql.Identifier(*names) for name in _sort_by_need(conn, schema) for names in list_tables(conn, name)]
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if tables:
            # The server's functions that write definitions look past the snapshot. With the tables held before it
            # begins, they find what it shows.
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(tables)))
        yield


def read_reserved_words(conn: Connection) -> frozenset[str]:
    """Those that the server itself quotes where they are names."""
    return frozenset(word for (word,) in conn.execute("SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'"))


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


class _Dump:
    def __init__(self, catalog: Catalog, reserved: frozenset[str]) -> None:
        self._catalog = catalog
        self._writer = SchemaWriter(catalog, reserved)
        self._name = self._writer.quote_name

    def write(self, needs: Sequence[tuple[int, int]], filling: Sequence[str], *, movable: bool) -> str:
        parts = [
            self._opening(movable=movable),
            *self._objects(needs),
            *_join_statements(self._sequence_owners()),
            *_join_statements(filling),
            *_join_statements(index.definition for index in self._catalog.indexes if not index.inherited),
            *_join_statements(self._foreign_keys()),
            *_join_statements(self._triggers()),
            *_join_statements(self._policies()),
            *_join_statements(self._grants()),
            *_join_statements(format_comment(comment) for comment in self._catalog.comments),
        ]
        return "\n\n".join(parts)

    def _opening(self, *, movable: bool) -> str:
        schema = self._name(self._catalog.schema)
        lines = [] if movable else [f"SET search_path = {schema};"]
        if schema != "public" and not movable:  # every new database has that one
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
        writer, catalog = self._writer, self._catalog
        texts: dict[int, str] = {type_.oid: f"{writer.write_type(type_)};" for type_ in catalog.types.values()}
        texts |= {s.oid: f"{writer.write_sequence(s)};" for s in catalog.sequences.values() if not s.identity}
        texts |= {routine.oid: f"{routine.definition.rstrip()};" for routine in catalog.routines}
        for relation in catalog.relations.values():
            made = writer.write_table(relation) if relation.is_table else [writer.write_view(relation)]
            texts[relation.oid] = "\n".join(f"{statement};" for statement in made)
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
                    format_privilege(grant)
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
