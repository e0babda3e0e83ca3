"""A mapping's statements: what runs on the source, and what runs on a target of each dialect.

The mapping's SELECT is taken as it stands in the file; only `:tenancy_id` is replaced. Nothing here runs anything.
"""

# ruff: noqa: S608 - this module writes SQL: names are quoted, values are parameters.
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from stackctl.mapping import target_statements
from stackctl.mapping.definition import fingerprint_mapping
from stackctl.mapping.sql_text import add_output, drop_fences, quote, quote_literal, to_driver_sql
from stackctl.mapping.target_statements import POSTGRES_TYPES

if TYPE_CHECKING:
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Column, ColumnType, Mapping

_TENANCY = "%(tenancy_id)s::uuid"
_CURSOR = "%(cursor)s::bigint"
_KEYS = "%(keys)s::jsonb"
# As the server takes it: with or without hyphens, in braces or not.
_UUID = "^([0-9a-fA-F]{4}(-?[0-9a-fA-F]{4}){7}|\\{[0-9a-fA-F]{4}(-?[0-9a-fA-F]{4}){7}\\})$"
_KEY_DIGITS: dict[ColumnType, int] = {"integer": 2**31 - 1, "bigint": 2**63 - 1}
_PAGE = f' AND "sequenceId" > {_CURSOR} ORDER BY "sequenceId" LIMIT %(limit)s::bigint'
_FIRST = f' AND "sequenceId" > {_CURSOR} ORDER BY "sequenceId" LIMIT 1'
_NUMBER = "_stack_sequence_id"
_RANGE = f' AND "sequenceId" > {_CURSOR} AND "sequenceId" <= %(up_to)s::bigint'


@dataclass(frozen=True)
class Compiled:
    """The statements of one mapping for one dialect.

    These run on the source (PostgreSQL, psycopg parameters):

    - `fetch` (tenancy_id, cursor, limit): a page of keys changed or deleted above the cursor with their rows as of
      now: `_stack_sequence_id`, `_stack_deleted`, then the mapping's columns, null but for the key where deleted.
      In no order; the page's highest sequence id is a safe cursor.
    - `by_key` (tenancy_id, keys): the same for keys that are named: a JSON array of arrays of text, each one key's
      columns in order of the mapping's key. The sequence id is 0.
    - `next_key` (tenancy_id, cursor): the first key of a page, as an array of text, and its sequence id. Nothing in it
      can fail for what the row or the tombstone holds.
    - `resend` (tenancy_id, cursor, limit): as `fetch`, but of the source's rows only, whatever was sent before.
    - `resend_next` (tenancy_id, cursor): the first key of such a page, as `next_key`.
    - `resend_total` (tenancy_id, cursor, up_to): how many rows of the source are above one id and not above another.
    - `load` (tenancy_id): every row, the mapping's columns only.
    - `load_window` (tenancy_id, cursor, up_to): the same of the rows whose ids are above one and not above the other,
      in order of these ids, which come first.
    - `fetch_window` (tenancy_id, cursor, up_to): what `fetch` yields of all that is above one id and not above another,
      in order of these ids, which come first; by one plan for many rows, where `fetch` looks up each.
    - `load_unstamped` (tenancy_id): as `load` of those that have no id yet.
    - `load_bound` (tenancy_id, cursor, limit, passed): the id that ends so many rows, and how many there are; no more
      than up to the first tombstone above `passed`. Null and 0 when none are left.
    - `high_water` (tenancy_id): the highest sequence id of the tenancy's rows and tombstones, or null.
    - `backlog` (tenancy_id, cursor): how many rows and tombstones are still to be sent.
    - `oldest_unsent` (tenancy_id, cursor): the lowest sequence id above the cursor, or null.

    The others run on the target. `staging` names the table that `create_staging` makes; its columns are those of
    `fetch`, for sqlite those of the key. For sqlite `upsert` takes one row (`?`, the mapping's columns) and `delete`
    one key (`?`, in key order); elsewhere both read the staging table. They count as literals: they are made
    of the checked file and quoted names, and hold no value.

    `fingerprint` is that of the mapping's meaning (definition.py).
    """

    mapping: Mapping
    dialect: Dialect
    fingerprint: str
    fetch: LiteralString
    by_key: LiteralString
    next_key: LiteralString
    resend: LiteralString
    resend_next: LiteralString
    resend_total: LiteralString
    load: LiteralString
    load_window: LiteralString
    fetch_window: LiteralString
    load_unstamped: LiteralString
    load_bound: LiteralString
    high_water: LiteralString
    backlog: LiteralString
    oldest_unsent: LiteralString
    create_table: LiteralString
    create_staging: LiteralString
    staging: str
    upsert: LiteralString
    delete: LiteralString

    @property
    def streamed_types(self) -> tuple[str, ...]:
        """PostgreSQL's types of the mapping's columns as they leave the source for this dialect."""
        return tuple(_streamed_type(column, self.dialect) for column in self.mapping.columns)


def compile_mapping(mapping: Mapping, dialect: Dialect) -> Compiled:
    """The statements of `mapping` for targets of `dialect`. The mapping must have passed its check."""
    target = target_statements.compile_target_statements(mapping, dialect)
    rows, tombstones = to_from_clauses(mapping)
    statements = {
        "fetch": _fetch(mapping, dialect),
        "by_key": _by_key(mapping, dialect),
        "next_key": _next_key(mapping),
        "resend": _resend(mapping, dialect),
        "resend_next": _changed_first(mapping),
        "resend_total": (f"SELECT count(*) AS total FROM {rows}{_RANGE}"),
        "load": _load(mapping, dialect),
        "load_window": _load_window(mapping, dialect),
        "fetch_window": _fetch_window(mapping, dialect),
        "load_unstamped": _load_part(mapping, dialect, ' AND "sequenceId" IS NULL'),
        "load_bound": (
            f'SELECT max("sequenceId") AS id, count(*) AS rows FROM (SELECT "sequenceId" FROM {rows}'
            f' AND "sequenceId" < COALESCE((SELECT min("sequenceId") FROM {tombstones}'
            f' AND "sequenceId" > GREATEST({_CURSOR}, %(passed)s::bigint)), {2**63 - 1}){_PAGE}) AS page'
        ),
        "high_water": (
            f'SELECT GREATEST((SELECT max("sequenceId") FROM {rows}), '
            f'(SELECT max("sequenceId") FROM {tombstones})) AS sequence_id'
        ),
        "backlog": _backlog(rows, tombstones),
        "oldest_unsent": (
            f'SELECT LEAST((SELECT min("sequenceId") FROM {rows} AND "sequenceId" > {_CURSOR}), '
            f'(SELECT min("sequenceId") FROM {tombstones} AND "sequenceId" > {_CURSOR})) AS sequence_id'
        ),
        "create_table": target.create_table,
        "create_staging": target.create_staging,
        "upsert": target.upsert,
        "delete": target.delete,
    }
    literals: dict[str, LiteralString] = {
        name: cast("LiteralString", statement) for name, statement in statements.items()
    }
    return Compiled(
        mapping=mapping,
        dialect=dialect,
        fingerprint=fingerprint_mapping(mapping),
        staging=target.staging,
        **literals,
    )


def to_from_clauses(mapping: Mapping) -> tuple[str, str]:
    """`table WHERE condition` of the tenancy's source rows, and of their tombstones."""
    if mapping.tenancy is None:
        own = f'"tenancyId" = {_TENANCY}'
    else:
        # A row from a sub-select, not a join: `filter` speaks of the source's columns without an alias, and the
        # planner may use an index that starts with them.
        theirs = ", ".join(f"n.{quote(column)}" for column in mapping.tenancy.on)
        ours = ", ".join(quote(column) for column in mapping.tenancy.on.values())
        own = f'({ours}) = (SELECT {theirs} FROM {quote(mapping.tenancy.table)} AS n WHERE n."id" = {_TENANCY})'
    rows = f"{quote(mapping.source)} WHERE {own}"
    if mapping.sent_filter is not None:
        rows += f" AND ({to_driver_sql(mapping.sent_filter, _TENANCY)}\n)"
    tombstones = f'"DeletedRow" WHERE "tenancyId" = {_TENANCY} AND "tableName" = {quote_for_driver(mapping.deleted_as)}'
    for column in mapping.key_columns:
        key = f'"primaryKey"->>{quote_for_driver(mapping.key[column.name])}'
        tombstones += f" AND {_is_key(key, column)}"
    return rows, tombstones


def _is_key(text: str, column: Column) -> str:
    """Whether a text can be a key of any row. A tombstone whose key can't has nothing to delete, and must not fail."""
    digits = _KEY_DIGITS.get(column.type)
    if column.type == "uuid":
        return f"{text} ~ '{_UUID}'"
    if digits is not None:
        return (
            f"CASE WHEN {text} ~ '^[-+]?[0-9]{{1,19}}$' THEN ({text})::numeric BETWEEN -{digits} - 1 AND {digits} END"
        )
    return f"{text} IS NOT NULL"


def quote_for_driver(text: str) -> str:
    return quote_literal(text).replace("%", "%%")


def _backlog(rows: str, tombstones: str) -> str:
    # Two counts an arm instead of one with OR: each has its own index.
    parts = [
        f'(SELECT count(*) FROM {arm} AND "sequenceId" > {_CURSOR})\n'
        f'  + (SELECT count(*) FROM {arm} AND "shouldUpdateSequenceId" = TRUE'
        f' AND ("sequenceId" IS NULL OR "sequenceId" <= {_CURSOR}))'
        for arm in (rows, tombstones)
    ]
    return "SELECT " + "\n  + ".join(parts) + " AS backlog"


def _fetch(mapping: Mapping, dialect: Dialect) -> str:
    """A page of what changed: rows and tombstones above the cursor, each arm limited before the merge."""
    changed = f"({_changed(mapping)})\nUNION ALL\n({_gone(mapping, _PAGE)})"
    return _joined(mapping, dialect, f"{changed}\nORDER BY sequence_id LIMIT %(limit)s::bigint")


def _gone(mapping: Mapping, which: str) -> str:
    _, tombstones = to_from_clauses(mapping)
    deleted = ", ".join(
        f'("primaryKey"->>{quote_for_driver(mapping.key[c.name])})::{POSTGRES_TYPES[c.type]} AS k{n}'
        for n, c in enumerate(mapping.key_columns)
    )
    return _with_lookup(mapping, f'SELECT {deleted}, "sequenceId" AS sequence_id FROM {tombstones}{which}')


def _changed(mapping: Mapping, which: str = _PAGE) -> str:
    rows, _ = to_from_clauses(mapping)
    columns = ", ".join(f"{quote(source)}::{POSTGRES_TYPES[c.type]} AS {alias}" for alias, c, source in _found(mapping))
    return f'SELECT {columns}, "sequenceId" AS sequence_id FROM {rows}{which}'


def _load_part(mapping: Mapping, dialect: Dialect, which: str) -> str:
    """Of some of the source's rows what the mapping makes of them, the mapping's columns only."""
    names = ", ".join(quote(column.name) for column in mapping.columns)
    joined = _joined(
        mapping, dialect, _changed(mapping, which).replace('"sequenceId" AS', 'COALESCE("sequenceId", 0) AS')
    )
    return f"SELECT {names} FROM (\n{joined}\n) AS part WHERE NOT _stack_deleted"


def _resend(mapping: Mapping, dialect: Dialect) -> str:
    """A page of rows. Tombstones would be as right, but they are kept for ever, and have nothing to send again."""
    return _joined(mapping, dialect, _changed(mapping))


def _by_key(mapping: Mapping, dialect: Dialect) -> str:
    """A page of the keys given, whether their rows exist or not."""
    types = [POSTGRES_TYPES[c.type] for c in mapping.key_columns]
    given = ", ".join(f"(given.key ->> {n})::{type_} AS k{n}" for n, type_ in enumerate(types))
    valid = " AND ".join(_is_key(f"given.key ->> {n}", column) for n, column in enumerate(mapping.key_columns))
    page = f"SELECT {given}, 0::bigint AS sequence_id FROM jsonb_array_elements({_KEYS}) AS given (key) WHERE {valid}"
    return _joined(mapping, dialect, _with_lookup(mapping, page))


def _with_lookup(mapping: Mapping, page: str) -> str:
    """A page of nothing but keys, each with what the mapping's `lookup` finds its row by now, if there is one.

    Not with what a tombstone says of that: the row may have come back under another value, and may have been sent.
    """
    if not mapping.lookup:
        return page
    rows, _ = to_from_clauses(mapping)
    ((_, key, key_source), (_, lookup, lookup_source)) = _found(mapping)
    id_ = f"{quote(key_source)}::{POSTGRES_TYPES[key.type]}"
    return (
        f"WITH given AS MATERIALIZED (\n{page}\n)\n"
        "SELECT given.k0, s.lookup, given.sequence_id FROM given FULL JOIN (\n"
        f"SELECT {id_} AS id, {quote(lookup_source)}::{POSTGRES_TYPES[lookup.type]} AS lookup FROM {rows}"
        f" AND {id_} = ANY (ARRAY(SELECT k0 FROM given))\n"
        ") AS s ON s.id = given.k0 WHERE COALESCE(given.sequence_id, -1) >= 0"
    )


def _next_key(mapping: Mapping) -> str:
    _, tombstones = to_from_clauses(mapping)
    deleted = ", ".join(f'"primaryKey"->>{quote_for_driver(source)}' for source in mapping.key.values())
    return (
        f"({_changed_first(mapping)})\n"
        f'UNION ALL\n(SELECT jsonb_build_array({deleted}), "sequenceId" FROM {tombstones}{_FIRST})\n'
        "ORDER BY sequence_id LIMIT 1"
    )


def _changed_first(mapping: Mapping) -> str:
    rows, _ = to_from_clauses(mapping)
    key = ", ".join(f"{quote(source)}::text" for source in mapping.key.values())
    return f'SELECT jsonb_build_array({key}) AS key, "sequenceId" AS sequence_id FROM {rows}{_FIRST}'


def _found(mapping: Mapping) -> list[tuple[str, Column, str]]:
    """What a page says of each key: (alias, the copy's column, the source's) of the key's columns and of the lookup."""
    by_name = {column.name: column for column in mapping.columns}
    found = [(f"k{n}", column, mapping.key[column.name]) for n, column in enumerate(mapping.key_columns)]
    return found + [("lookup", by_name[name], source) for name, source in mapping.lookup.items()]


def _joined(mapping: Mapping, dialect: Dialect, page: str) -> str:
    """A page of keys with their rows, bound so that no planner estimate can make it read the table.

    A plain join turned quadratic on tables without statistics. One key column: its rows are found through an array
    of the page's keys, and FULL JOIN (of rows that all have their key in the page) cannot become a nested loop.
    Several key columns: one index look-up a key, kept apart by OFFSET 0.
    """
    keys = mapping.key_columns
    by_name = {column.name: column for column in mapping.columns}
    names = ", ".join(f"k{n}" for n in range(len(keys)))
    first = quote(keys[0].name)
    select = to_driver_sql(mapping.select, _TENANCY)
    if len(keys) == 1:
        finder, alias = (keys[0].name, "k0") if not mapping.lookup else (next(iter(mapping.lookup)), "lookup")
        join = (
            f"FULL JOIN (SELECT * FROM (\n{select}\n) AS x"
            f" WHERE x.{quote(finder)}::{POSTGRES_TYPES[by_name[finder].type]}"
            f" = ANY (ARRAY(SELECT DISTINCT {alias} FROM page))) AS m"
            f" ON m.{first}::{POSTGRES_TYPES[keys[0].type]} = keys.k0\n"
            # COALESCE keeps the planner from seeing that this makes the join a LEFT JOIN.
            "WHERE COALESCE(keys.sequence_id, -1) >= 0"
        )
    else:
        on = " AND ".join(f"x.{quote(c.name)}::{POSTGRES_TYPES[c.type]} = keys.k{n}" for n, c in enumerate(keys))
        join = f"LEFT JOIN LATERAL (SELECT * FROM (\n{select}\n) AS x WHERE {on} OFFSET 0) AS m ON TRUE"
    return (
        f"WITH page AS MATERIALIZED (\n{page}\n"
        "), keys AS MATERIALIZED (\n"
        f"SELECT {names}, max(sequence_id) AS sequence_id FROM page GROUP BY {names}\n"
        ")\n"
        f"SELECT {_encode_found(mapping, dialect)}\nFROM keys {join}"
    )


def _encode_found(mapping: Mapping, dialect: Dialect) -> str:
    """The output of a page: `keys` joined to what the mapping makes of them, `m`."""
    key_names = list(mapping.key)
    output = [
        encode_column(f"keys.k{key_names.index(c.name)}" if c.name in mapping.key else f"m.{quote(c.name)}", c, dialect)
        for c in mapping.columns
    ]
    gone = f"(m.{quote(mapping.key_columns[0].name)} IS NULL) AS _stack_deleted"
    return ",\n  ".join([f"keys.sequence_id AS {_NUMBER}", gone, *output])


def _fetch_window(mapping: Mapping, dialect: Dialect) -> str:
    names = ", ".join(f"k{n}" for n in range(len(mapping.key)))
    on = " AND ".join(
        f"m.{quote(c.name)}::{POSTGRES_TYPES[c.type]} = keys.k{n}" for n, c in enumerate(mapping.key_columns)
    )
    return (
        f"SELECT keys.sequence_id,\n  {_encode_found(mapping, dialect)}\nFROM (\n"
        f"SELECT {names}, max(sequence_id) AS sequence_id FROM (\n"
        f"({_changed(mapping, _RANGE)})\nUNION ALL\n({_gone(mapping, _RANGE)})\n) AS page GROUP BY {names}\n"
        f") AS keys LEFT JOIN (\n{to_driver_sql(drop_fences(mapping.select), _TENANCY)}\n) AS m ON {on}\n"
        "ORDER BY keys.sequence_id"
    )


def _load(mapping: Mapping, dialect: Dialect) -> str:
    """All rows: look-ups that are kept apart for the sake of pages are joins here, of whole tables, by hashing."""
    select = to_driver_sql(drop_fences(mapping.select), _TENANCY)
    return f"SELECT\n  {_encode_all(mapping, dialect)}\nFROM (\n{select}\n) AS m"


def _load_window(mapping: Mapping, dialect: Dialect) -> str:
    select = to_driver_sql(add_output(drop_fences(mapping.select), '"sequenceId"', _NUMBER), _TENANCY)
    return (
        f"SELECT m.{_NUMBER},\n  {_encode_all(mapping, dialect)}\nFROM (\n{select}\n) AS m"
        f"\nWHERE m.{_NUMBER} > {_CURSOR} AND m.{_NUMBER} <= %(up_to)s::bigint\nORDER BY m.{_NUMBER}"
    )


def _encode_all(mapping: Mapping, dialect: Dialect) -> str:
    return ",\n  ".join(encode_column(f"m.{quote(c.name)}", c, dialect) for c in mapping.columns)


def encode_column(expression: str, column: Column, dialect: Dialect) -> str:
    """The value in the form that the dialect's loader takes without further conversion, under the column's name."""
    return f"{convert_expression(expression, column, dialect)} AS {quote(column.name)}"


def _streamed_type(column: Column, dialect: Dialect) -> str:
    if dialect == "sqlite":
        return {"boolean": "int4", "integer": "int4", "bigint": "int8", "double": "float8"}.get(column.type, "text")
    return POSTGRES_TYPES[column.type]


def convert_expression(expression: str, column: Column, dialect: Dialect) -> str:
    """The same without the name."""
    value = f"{expression}::{POSTGRES_TYPES[column.type]}"
    if dialect != "postgres":
        if column.type == "timestamptz":
            # The session's time zone must not show in the text.
            value = f"({value} AT TIME ZONE 'UTC')::text" + (" || '+00'" if dialect in ("sqlite", "duckdb") else "")
        elif column.type in ("uuid", "json", "numeric", "date", "timestamp"):
            value += "::text"
        elif column.type == "boolean" and dialect != "duckdb":
            value += "::integer"
    return value
