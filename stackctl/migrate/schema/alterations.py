"""What turns one thing of a schema into its namesake of another, in place, where that can be done."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.migrate.schema.things import write_grants, write_revoke
from stackctl.migrate.schema.writer import quote_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stackctl.migrate.schema.catalog import Column, Relation, Routine, Sequence, Type
    from stackctl.migrate.schema.things import Key, Thing


@dataclass(frozen=True)
class Change:
    """One statement, without its semicolon. `loses`: what it destroys, or may. `remark`: what else to know of it."""

    key: Key
    sql: str
    loses: str = ""
    remark: str = ""


class NotInPlaceError(Exception):
    """The thing has to be dropped and made anew. `impossible`: or rather, why nothing will do but `changes`."""

    def __init__(self, impossible: str = "", changes: tuple[Change, ...] = ()) -> None:
        super().__init__(impossible)
        self.impossible = impossible
        self.changes = changes


def alter(before: Thing, after: Thing) -> tuple[Change, ...]:
    """The statements that make `before` like `after`. Raises NotInPlaceError."""
    return tuple(_ALTER.get(after.kind, _refuse)(before, after))


def changes_type(before: Thing, after: Thing) -> bool:
    """Whether a column's values get another type, which what is made of them has to be dropped for."""
    if before.kind != "column" or before.state is None or after.state is None:
        return False
    return before.state[:2] != after.state[:2]


def is_widened(before: str, after: str) -> bool:
    """Whether every value of the one type is the same value of the other."""
    for family in (("smallint", "integer", "bigint", "numeric"), ("real", "double precision")):
        if before in family and after in family:
            return family.index(before) <= family.index(after)
    if before.startswith("numeric(") and after.startswith("numeric"):
        if after == "numeric":
            return True
        (precision, scale), (wider, finer) = (map(int, re.findall(r"-?\d+", text)) for text in (before, after))
        return finer >= scale and wider - finer >= precision - scale
    limits = [re.fullmatch(r"(?:character varying|varchar)(?:\((\d+)\))?", text) for text in (before, after)]
    if limits[0] is None:
        return before == after
    if after == "text":
        return True
    return limits[1] is not None and (limits[1][1] is None or int(limits[0][1] or 0) in range(1, int(limits[1][1]) + 1))


def _refuse(before: Thing, after: Thing) -> Iterator[Change]:
    raise NotInPlaceError


def _alter_extension(before: Thing, after: Thing) -> Iterator[Change]:
    *schema, _ = after.create
    yield from (Change(after.key, sql) for sql in schema)
    yield Change(after.key, f"ALTER EXTENSION {after.shown} SET SCHEMA {after.create[-1].rpartition(' ')[2]}")


def _alter_type(before: Thing, after: Thing) -> Iterator[Change]:
    old: Type = before.source
    new: Type = after.source
    if (old.kind, new.kind) == ("e", "e"):
        yield from _add_labels(old, new, after)
    elif (old.kind, new.kind) == ("d", "d") and old.base == new.base:
        domain = f"ALTER DOMAIN {after.shown}"
        if old.default != new.default:
            how = "DROP DEFAULT" if new.default is None else f"SET DEFAULT {new.default}"
            yield Change(after.key, f"{domain} {how}")
        if old.not_null != new.not_null:
            yield Change(after.key, f"{domain} {'SET' if new.not_null else 'DROP'} NOT NULL")
        for check in old.checks:
            if check not in new.checks:
                name = re.match(r'CONSTRAINT ("(?:[^"]|"")+"|\S+)', check)
                assert name is not None
                yield Change(after.key, f"{domain} DROP CONSTRAINT {name[1]}")
        yield from (Change(after.key, f"{domain} ADD {check}") for check in new.checks if check not in old.checks)
    else:
        raise NotInPlaceError


def _add_labels(old: Type, new: Type, after: Thing) -> Iterator[Change]:
    changes: list[Change] = []
    for place, label in enumerate(new.labels):
        if label not in old.labels:
            behind = next((other for other in new.labels[place:] if other in old.labels), None)
            where = "" if behind is None else f" BEFORE {quote_literal(behind)}"
            changes.append(Change(after.key, f"ALTER TYPE {after.shown} ADD VALUE {quote_literal(label)}{where}"))
    if [label for label in new.labels if label in old.labels] != list(old.labels):
        extra = [label for label in old.labels if label not in new.labels]
        what = f"the values {', '.join(map(quote_literal, extra))}" if extra else "its values in another order"
        raise NotInPlaceError(
            f"type {after.shown} has {what}, which no statement takes back: make another type for its columns",
            tuple(changes),
        )
    yield from changes


def _alter_sequence(before: Thing, after: Thing) -> Iterator[Change]:
    turned = (before.source.increment > 0) is not (after.source.increment > 0)
    sql = f"ALTER SEQUENCE {after.shown} AS {after.source.type} {_spell_options(after.source)}"
    yield Change(after.key, f"{sql} RESTART", before.loses) if turned else Change(after.key, sql)


def _spell_options(sequence: Sequence, prefix: str = "") -> str:
    words = (
        f"INCREMENT BY {sequence.increment}", f"MINVALUE {sequence.minimum}", f"MAXVALUE {sequence.maximum}",
        f"START WITH {sequence.start}", f"CACHE {sequence.cache}", "CYCLE" if sequence.cycle else "NO CYCLE",
    )  # fmt: skip
    return " ".join(f"{prefix}{word}" for word in words)


def _set_anew(before: Thing, after: Thing) -> Iterator[Change]:
    yield from (Change(after.key, sql) for sql in after.create)


def _alter_routine(before: Thing, after: Thing) -> Iterator[Change]:
    old: Routine = before.source
    new: Routine = after.source
    same = (old.kind, old.result, old.argument_names) == (new.kind, new.result, new.argument_names)
    if not same or new.kind == "a" or old.defaults > new.defaults or old.identity != new.identity:
        raise NotInPlaceError
    yield from _set_anew(before, after)


def _alter_table(before: Thing, after: Thing) -> Iterator[Change]:
    old: Relation = before.source
    new: Relation = after.source
    table = f"ALTER TABLE {after.shown}"
    if (old.kind, old.partition_key) != (new.kind, new.partition_key):
        raise NotInPlaceError(
            f"table {after.shown} is partitioned otherwise ({old.partition_key or 'not at all'} → "
            f"{new.partition_key or 'not at all'}): make the new table beside it, and move the rows"
        )
    if old.unlogged != new.unlogged:
        yield Change(after.key, f"{table} SET {'UNLOGGED' if new.unlogged else 'LOGGED'}")
    yield from _alter_options(table, old, new, after.key)
    if old.row_security != new.row_security:
        yield Change(after.key, f"{table} {'ENABLE' if new.row_security else 'DISABLE'} ROW LEVEL SECURITY")
    if old.force_row_security != new.force_row_security:
        yield Change(after.key, f"{table} {'FORCE' if new.force_row_security else 'NO FORCE'} ROW LEVEL SECURITY")


def _alter_options(table: str, old: Relation, new: Relation, key: Key) -> Iterator[Change]:
    if gone := {option.partition("=")[0] for option in old.options} - {o.partition("=")[0] for o in new.options}:
        yield Change(key, f"{table} RESET ({', '.join(sorted(gone))})")
    if fresh := [option for option in new.options if option not in old.options]:
        yield Change(key, f"{table} SET ({', '.join(fresh)})")


def _alter_view(before: Thing, after: Thing) -> Iterator[Change]:
    columns = before.state[3]
    if (before.source.kind, after.source.kind) != ("v", "v") or after.state[3][: len(columns)] != columns:
        raise NotInPlaceError
    yield Change(after.key, after.create[0].replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))


def _alter_column(before: Thing, after: Thing) -> Iterator[Change]:
    old: Column = before.source[0]
    new: Column = after.source[0]
    alter: str = after.source[2]
    if (old.generated, old.expression if old.generated else None) != (
        new.generated,
        new.expression if new.generated else None,
    ):
        if old.generated != "s" or new.generated:
            raise NotInPlaceError
        yield Change(after.key, f"{alter} DROP EXPRESSION")
    if old.identity and not new.identity:
        yield Change(after.key, f"{alter} DROP IDENTITY")
    if (old.type, old.collation) != (new.type, new.collation):
        yield _alter_column_type(alter, old, new, after)
    if new.not_null and not old.not_null:
        yield Change(after.key, f"{alter} SET NOT NULL", remark=f"fails while a row has no {after.shown}")
    yield from _alter_identity(alter, before, after)
    if old.not_null and not new.not_null:
        yield Change(after.key, f"{alter} DROP NOT NULL")


def _alter_column_type(alter: str, old: Column, new: Column, after: Thing) -> Change:
    collation = f" COLLATE {new.collation}" if new.collation else ""
    if old.type == new.type or is_widened(old.type, new.type):
        return Change(after.key, f"{alter} TYPE {new.type}{collation}")
    using = ""
    if not _casts_by_itself(old.type, new.type):
        column = alter.rpartition(" ALTER COLUMN ")[2]
        using = f" USING {column}::text::{new.type}"
        if new.type.endswith("[]"):
            using = f" USING {column}::text[]::{new.type}"
            if not old.type.endswith("[]"):
                using = f" USING CASE WHEN {column} IS NOT NULL THEN ARRAY[{column}::text]::{new.type} END"
    loses = f"values of {after.shown} are converted from {old.type} to {new.type}"
    return Change(after.key, f"{alter} TYPE {new.type}{collation}{using}", loses)


_CASTS = (
    r"smallint|integer|bigint|numeric(\(.*\))?|real|double precision",
    r"text|character varying(\(\d+\))?|character(\(\d+\))?",
    r"date|timestamp(\(\d\))? (with|without) time zone",
)


def _casts_by_itself(old: str, new: str) -> bool:
    """Whether ALTER … TYPE needs no USING; without it, a text that is too long is an error and not cut off."""
    if re.fullmatch(_CASTS[1], new):
        return True
    return any(re.fullmatch(family, old) and re.fullmatch(family, new) for family in _CASTS)


def _alter_identity(alter: str, before: Thing, after: Thing) -> Iterator[Change]:
    (old, old_sequence, _), (new, new_sequence, _) = before.source, after.source
    if not new.identity:
        return
    how = f"GENERATED {'ALWAYS' if new.identity == 'a' else 'BY DEFAULT'}"
    if not old.identity:
        yield Change(after.key, f"{alter} ADD {how} AS IDENTITY ({_spell_options(new_sequence)})")
        return
    if old.identity != new.identity:
        yield Change(after.key, f"{alter} SET {how}")
    if _spell_options(old_sequence) != _spell_options(new_sequence):
        yield Change(after.key, f"{alter} {_spell_options(new_sequence, 'SET ')}")


def _alter_constraint(before: Thing, after: Thing) -> Iterator[Change]:
    if before.state != f"{after.state} NOT VALID":
        raise NotInPlaceError
    table = after.create[0].partition(" ADD CONSTRAINT ")[0]
    yield Change(after.key, f"{table} VALIDATE CONSTRAINT {after.shown.rpartition(' on ')[0]}")


def _alter_trigger(before: Thing, after: Thing) -> Iterator[Change]:
    (old, _), (new, switch) = before.source, after.source
    if old != new:
        raise NotInPlaceError
    yield Change(after.key, switch)


def _alter_grant(before: Thing, after: Thing) -> Iterator[Change]:
    kind, name, grantee = after.source
    old, new = before.state, after.state
    if gone := {privilege for privilege, _ in old - new}:
        yield Change(after.key, write_revoke(kind, name, grantee, gone))
    missing = {right for right in new if right not in old or right[0] in gone}
    yield from (Change(after.key, sql) for sql in write_grants(kind, name, grantee, missing))


_ALTER: dict[str, Callable[[Thing, Thing], Iterator[Change]]] = {
    "extension": _alter_extension,
    "type": _alter_type,
    "sequence": _alter_sequence,
    "owner": _set_anew,
    "routine": _alter_routine,
    "table": _alter_table,
    "view": _alter_view,
    "column": _alter_column,
    "default": _set_anew,
    "constraint": _alter_constraint,
    "trigger": _alter_trigger,
    "grant": _alter_grant,
    "comment": _set_anew,
}
