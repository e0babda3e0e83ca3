"""The reverse of a migration, as a draft: what its tool's way down says, or else what the schema had before it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from stackctl.core.errors import ConfigError, UsageError
from stackctl.migrate import files, up_halves
from stackctl.migrate.compatibility.scratch_schemas import ScratchSchemas, open_scratch_schemas
from stackctl.migrate.parser import facts as f
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.token_reader import QualifiedName
from stackctl.migrate.runner import plan
from stackctl.migrate.schema.difference import compare_schemas, write_difference
from stackctl.migrate.source_text import read_text
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stackctl.migrate.files import Migration, Statement
    from stackctl.migrate.schema.things import SchemaState
    from stackctl.postgres.libpq import Connection

_WIDTH = 60  # of a statement in a comment

_NAME = r'((?:"[^"]+"|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|[\w$]+))?)'
_ROWS = re.compile(
    rf"(INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE|MERGE\s+INTO|COPY)\s+(?:TABLE\s+)?(?:ONLY\s+)?{_NAME}", re.I
)
# What a comparison of the schemas shows, and what leaves nothing behind.
_COMPARED = re.compile(
    r"COMMENT|GRANT|REVOKE|(?:CREATE(?:\s+OR\s+REPLACE)?|ALTER|DROP)\s+(?:UNLOGGED\s+|UNIQUE\s+|MATERIALIZED\s+|CONSTRAINT\s+"
    r"|RECURSIVE\s+)*(?:TABLE|INDEX|VIEW|SEQUENCE|TYPE|DOMAIN|FUNCTION|PROCEDURE|ROUTINE|AGGREGATE|TRIGGER|POLICY|EXTENSION"
    r"|SCHEMA|STATISTICS|RULE)\b|CREATE\s+(?:GLOBAL\s+|LOCAL\s+)?TEMP",
    re.I,
)
_PASSING = re.compile(
    r"(SET|RESET|SHOW|LOCK|ANALY[ZS]E|VACUUM|REINDEX|CLUSTER|REFRESH|NOTIFY|LISTEN|SAVEPOINT|RELEASE|ROLLBACK|EXPLAIN"
    r"|CHECKPOINT|DISCARD|DECLARE|CLOSE|FETCH|PREPARE|DEALLOCATE)\b",
    re.I,
)
_RENAMED = {"table": "TABLE", "index": "INDEX", "view": "VIEW", "materialized view": "MATERIALIZED VIEW",
            "sequence": "SEQUENCE", "type": "TYPE", "domain": "DOMAIN"}  # fmt: skip


@dataclass(frozen=True)
class RevertDraft:
    """`name`: of what is reversed, without its version. `text`: the new file. `missing`: what could not be reversed,
    which keeps the file from running.
    """

    name: str
    text: str
    missing: tuple[str, ...]


def draft_revert(
    migrations: Sequence[Migration],
    named: str,
    schema: str,
    *,
    trust: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> RevertDraft:
    """The reverse of the migration of that version or name. Nothing but a scratch server is touched.

    Raises UsageError (`unknown-migration`), and as `ScratchSchemas.apply` and `embedded.attach` do.
    """
    place = plan.find_place(migrations, named)
    if place is None:
        raise UsageError(
            f"there is no migration {named}", code="unknown-migration", hint="name the version or the name of a file"
        )
    migration = migrations[place]
    name = migration.name.partition("_")[2]
    own = _read_way_down(migration) if migration.tool else ""
    if own:
        head = f"-- The way down of {migration.name}, as its file has it: read it before you run it."
        return RevertDraft(name, f"{head}\n\n{own}\n", ())
    tell("starting a scratch PostgreSQL")
    with open_scratch_schemas(schema, trust=trust) as scratch:
        tell(f"applying the migrations ({place + 1})")
        scratch.apply("before", migrations[:place])
        scratch.apply("after", migrations[: place + 1], template="before")
        scratch.apply("renamed", migrations[: place + 1], template="after")
        before = scratch.read("before")
        with scratch.connect("renamed") as conn:
            renames = _rename_back(conn, migration, schema)
        difference = compare_schemas(scratch.read("renamed"), before)
        missing = [*_list_missing(migration, before, schema), *difference.omitted]
        body = write_difference(replace(difference, omitted=()), _list_concurrent(migration, schema))
        body = "\n".join([*(f"{rename};" for rename in renames), *([""] if renames and body else []), body])
        if body.strip():
            missing += _try_out(scratch, migrations, place, body)
    return RevertDraft(name, _write(migration, migrations[place + 1 :], body, missing), tuple(missing))


def _write(migration: Migration, later: Sequence[Migration], body: str, missing: Sequence[str]) -> str:
    head = [f"-- The reverse of {migration.name}, as a draft: read it before you run it."]
    if later:
        head.append(f"-- Later migrations may need what it takes away: {plan.format_names([m.name for m in later])}")
    head += [f"-- not reversed: {' '.join(what.split())}" for what in missing]
    if missing:
        head += ["-- As long as the next line stands here, nothing of this file runs.", files.DRAFT]
    return "\n".join(head) + ("\n\n" + body if body.strip() else "\n")


def _try_out(scratch: ScratchSchemas, migrations: Sequence[Migration], place: int, body: str) -> Iterator[str]:
    template = "after"
    if place + 1 < len(migrations):
        template = "all"
        scratch.apply(template, migrations, template="after")
    try:
        scratch.apply_text("tried", body, template=template)
    except ConfigError as error:
        yield f"behind the last migration it fails: {error.message.rpartition('do not apply: ')[2]}"


def _read_way_down(migration: Migration) -> str:
    if migration.path.stem.endswith(up_halves.UP):
        pair = migration.path.with_name(migration.path.name.replace(up_halves.UP, up_halves.DOWN))
        return read_text(pair).strip() if pair.is_file() else ""
    text = read_text(migration.path)
    down, outside = up_halves.take_down_half(text, list(lexer.tokenize(text)))
    return f"-- stackctl:outside-transaction\n{down}" if down and outside else down


def _list_statements(migration: Migration) -> list[Statement]:
    return [statement for piece in migration.pieces for statement in piece.statements]


def _list_facts(migration: Migration, schema: str) -> list[f.Fact]:
    return [fact for one in _list_statements(migration) for fact in statements.parse_statement(one.sql, schema).facts]


def _rename_back(conn: Connection, migration: Migration, schema: str) -> list[str]:
    """The renames of the migration the other way round, as far as they apply, last first; they are applied."""
    done: list[str] = []
    for fact in reversed(_list_facts(migration, schema)):
        rename = _write_rename(fact, schema)
        if rename is None:
            continue
        try:
            conn.execute(rename.encode())
        except psycopg.Error:
            continue  # what was renamed is gone, or its old name is taken: the comparison tells
        done.append(rename)
    return done


def _write_rename(fact: f.Fact, schema: str) -> str | None:
    def quote(name: QualifiedName) -> str:
        parts = (name.name,) if name.schema == schema else (name.schema, name.name)
        return sql.Identifier(*parts).as_string()

    def plain(name: str) -> str:
        return sql.Identifier(name).as_string()

    match fact:
        case f.ObjectRenamed(kind="constraint", table=QualifiedName() as table, name=name, to=to):
            return f"ALTER TABLE {quote(table)} RENAME CONSTRAINT {plain(to)} TO {plain(name.name)}"
        case f.ObjectRenamed(kind=kind, name=name, to=to, moved=False) if kind in _RENAMED:
            return f"ALTER {_RENAMED[kind]} {quote(name.sibling(to))} RENAME TO {plain(name.name)}"
        case f.ColumnRenamed(table=table, column=column, to=to):
            return f"ALTER TABLE {quote(table)} RENAME COLUMN {plain(to)} TO {plain(column)}"
        case f.EnumValueRenamed(type=name, value=value, to=to):
            old, new = (sql.Literal(text).as_string() for text in (value, to))
            return f"ALTER TYPE {quote(name)} RENAME VALUE {new} TO {old}"
        case _:
            return None


def _list_concurrent(migration: Migration, schema: str) -> set[str]:
    """The indexes that it builds or drops CONCURRENTLY."""
    found: set[str] = set()
    for fact in _list_facts(migration, schema):
        match fact:
            case f.IndexBuilt(name=QualifiedName(name=name), concurrently=True):
                found.add(name)
            case f.ObjectDropped(kind="index", name=QualifiedName(name=name), concurrently=True):
                found.add(name)
            case _:
                pass
    return found


def _list_missing(migration: Migration, before: SchemaState, schema: str) -> Iterator[str]:
    """What its statements did that no comparison of schemas brings back."""
    for statement in _list_statements(migration):
        shown = " ".join(statement.sql.split())
        place = f"line {statement.line}: {shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + '…'}"
        if rows := _ROWS.match(statement.sql):
            table = rows[2].rpartition(".")[2].strip()
            name = table[1:-1] if table.startswith('"') else table.lower()
            if ("table", name) in before.things:
                made = rows[1].split()[0].upper() in ("INSERT", "COPY")
                yield f"{place}: {'the rows that it made stay' if made else 'what the rows held before is gone'}"
        elif not _COMPARED.match(statement.sql) and not _PASSING.match(statement.sql):
            yield f"{place}: what it did can't be told from the schema"
        for fact in statements.parse_statement(statement.sql, schema).facts:
            match fact:
                case f.ObjectDropped(kind="table", name=name) if ("table", name.name) in before.things:
                    yield f"{place}: table {name} comes back empty"
                case f.ColumnDropped(table=table, column=column) if ("column", table.name, column) in before.things:
                    yield f"{place}: column {table}.{column} comes back empty"
                case f.TypeChanged(table=table, column=column) if ("column", table.name, column) in before.things:
                    yield f"{place}: what the change of type did to the values of {table}.{column} stays"
                case _:
                    pass
