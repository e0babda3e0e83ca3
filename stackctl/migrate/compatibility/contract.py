"""Two states of a schema, judged as a contract: does what worked with the first still work with the second?

What is added and asks nothing of the running version passes: tables, nullable columns and those with a default,
indexes, enum values, functions, grants.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from stackctl.migrate.compatibility import contract_constraints as constraints
from stackctl.migrate.compatibility.contract_rules import Breach
from stackctl.migrate.schema.catalog import unquote_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from stackctl.migrate.schema.catalog import Catalog, Column, Grant, Relation, Routine

_VARYING = re.compile(r"character varying(?:\((\d+)\))?|text")
_NEVER_NULL = re.compile(r'CHECK \((\w+|"[^"]+") IS NOT NULL\)(?: NOT VALID)?')
_INTEGERS = ("smallint", "integer", "bigint", "numeric")
_WIDER = {("real", "double precision"), ("json", "jsonb"), *itertools.combinations(_INTEGERS, 2)}


def find_breaches(before: Catalog, after: Catalog) -> tuple[Breach, ...]:
    """Every breach, tables first; the order does not depend on anything but the two catalogs."""
    return tuple(
        breach
        for part in (
            _compare_relations,
            constraints.find_constraint_breaches,
            _compare_types,
            _compare_routines,
            _compare_sequences,
            _compare_rights,
            _compare_triggers,
        )
        for breach in part(before, after)
    )


def _compare_relations(before: Catalog, after: Catalog) -> Iterator[Breach]:
    for name, old in before.relations.items():
        new = after.relations.get(name)
        if new is None:
            yield _to_missing_relation(old, before, after)
            continue
        if old.is_table != new.is_table:
            yield Breach("relation-kind", f"{name} was a {_kind(old)} and is a {_kind(new)}", (name,))
        never_null = {c.columns for c in before.constraints if c.table == name and _NEVER_NULL.fullmatch(c.definition)}
        for breach in _compare_columns(old, new):
            if breach.rule != "set-not-null" or breach.names[1:] not in never_null:
                yield breach
        if old.query is not None and new.query is not None and old.query != new.query and old.columns == new.columns:
            yield Breach("view-changed", f"view {name} has another query", (name,))


def _to_missing_relation(old: Relation, before: Catalog, after: Catalog) -> Breach:
    if not old.is_table:
        return Breach("drop-view", f"view {old.name} is dropped", (old.name,))
    shape = {column.name: column.type for column in old.columns.values()}
    for name, new in after.relations.items():
        if (
            name not in before.relations
            and new.is_table
            and shape.items() <= {column.name: column.type for column in new.columns.values()}.items()
        ):
            return Breach("rename-table", f"table {old.name} is gone (renamed to {name}?)", (old.name, name))
    return Breach("drop-table", f"table {old.name} is dropped", (old.name,))


def _kind(relation: Relation) -> str:
    return "table" if relation.is_table else "view"


def _compare_columns(old: Relation, new: Relation) -> Iterator[Breach]:
    added = [column for name, column in new.columns.items() if name not in old.columns]
    unclaimed = list(added)
    for name, column in old.columns.items():
        at, names = f"{old.name}.{name}", (old.name, name)
        now = new.columns.get(name)
        if now is not None:
            yield from _compare_column(at, names, column, now, old.is_table and new.is_table)
            continue
        twin = next((c for c in unclaimed if c.type == column.type), None)
        if twin is None:
            yield Breach("drop-column", f"column {at} is dropped", names)
        else:
            unclaimed.remove(twin)
            what = f"column {at} is gone (renamed to {twin.name}, which is new and {twin.type} as well?)"
            yield Breach("rename-column", what, (*names, twin.name))
    if old.is_table and new.is_table:
        for column in added:
            # One that took another's place is reported already.
            if column.not_null and column.default is None and column in unclaimed:
                what = f"column {old.name}.{column.name} is new, NOT NULL and without a default"
                yield Breach("not-null-without-default", what, (old.name, column.name))


def _compare_column(at: str, names: tuple[str, ...], old: Column, new: Column, in_table: bool) -> Iterator[Breach]:
    if old.type != new.type and not _is_longer_text(old.type, new.type):
        weight = "warning" if _is_wider(old.type, new.type) else None
        yield Breach("column-type-change", f"column {at} was {old.type} and is {new.type}", names, weight)
    if not in_table:
        return
    if new.not_null and not old.not_null:
        yield Breach("set-not-null", f"column {at} becomes NOT NULL", names)
    if old.not_null and not new.not_null:
        yield Breach("drop-not-null", f"column {at} may be null", names)
    if (new.generated or new.identity == "a") and not (old.generated or old.identity == "a"):
        yield Breach("column-generated", f"column {at} becomes generated", names)
    elif old.default is not None and new.default is None:
        rule = "drop-generated" if old.identity or old.generated else "drop-default"
        weight = None if new.not_null else "warning"
        yield Breach(rule, f"column {at} loses its default ({old.default})", names, weight)
    elif old.default is not None and old.default != new.default and old.type == new.type:
        yield Breach("default-changed", f"column {at} had the default {old.default} and has {new.default}", names)


def _is_longer_text(old: str, new: str) -> bool:
    """Text of any length in place of text of some length: every client reads and writes it as before."""
    a, b = _VARYING.fullmatch(old), _VARYING.fullmatch(new)
    if a is None or b is None:
        return False
    return b[1] is None or (a[1] is not None and int(a[1]) <= int(b[1]))


def _is_wider(old: str, new: str) -> bool:
    if (old, new) in _WIDER:
        return True
    a, b = (re.fullmatch(r"numeric(?:\((\d+),(\d+)\))?", text) for text in (old, new))
    if not (a and b and a[1]):
        return False
    return b[1] is None or (a[2] == b[2] and int(a[1]) <= int(b[1]))


def _compare_types(before: Catalog, after: Catalog) -> Iterator[Breach]:
    for name, old in before.types.items():
        new = after.types.get(name)
        if new is None:
            yield Breach("drop-type", f"type {name} is dropped", (name,))
        elif old.kind == "e" and new.kind == "e":
            added = [label for label in new.labels if label not in old.labels]
            for place, label in enumerate(old.labels):
                if label in new.labels:
                    continue
                now = new.labels[place] if len(old.labels) == len(new.labels) else None
                if now in added:
                    what = f"value '{label}' of {name} is gone (renamed to '{now}', which stands in its place?)"
                    yield Breach("rename-enum-value", what, (name, label))
                else:
                    yield Breach("drop-enum-value", f"value '{label}' of {name} is dropped", (name, label))
        elif (old.kind, old.definition) != (new.kind, new.definition):
            what = f"type {name} was ({old.definition or 'an enum'}) and is ({new.definition or 'an enum'})"
            yield Breach("type-changed", what, (name,))


def _compare_routines(before: Catalog, after: Catalog) -> Iterator[Breach]:
    now = {routine.signature: routine for routine in after.routines}
    for old in before.routines:
        if old.result == "trigger":  # what nobody calls is judged as the triggers that use it
            continue
        namesakes = [routine for routine in after.routines if routine.name == old.name]
        new = now.get(old.signature) or next(
            (routine for routine in namesakes if _accepts_calls_of(routine, old)), None
        )
        if new is None and namesakes:
            what = f"function {old.signature} takes other arguments: {namesakes[0].signature}"
            yield Breach("function-changed", what, (old.name,))
        elif new is None:
            yield Breach("drop-function", f"function {old.signature} is dropped", (old.name,))
        else:
            if new.argument_names[: len(old.argument_names)] != old.argument_names or _count_required_arguments(
                new
            ) > _count_required_arguments(old):
                yield Breach("function-changed", f"the arguments of function {old.signature} changed", (old.name,))
            if new.result != old.result or new.kind != old.kind:
                what = f"function {old.signature} returned {old.result} and returns {new.result}"
                yield Breach("function-changed", what, (old.name,))


def _accepts_calls_of(new: Routine, old: Routine) -> bool:
    count = len(old.arguments)
    return new.arguments[:count] == old.arguments and _count_required_arguments(new) <= count


def _count_required_arguments(routine: Routine) -> int:
    return len(routine.arguments) - routine.defaults


def _compare_sequences(before: Catalog, after: Catalog) -> Iterator[Breach]:
    for name, old in before.sequences.items():
        new = after.sequences.get(name)
        owner = after.relations.get(old.owner_table) if old.owner_table else None
        if old.owner_table and (owner is None or old.owner_column not in owner.columns):
            continue  # it went with its column
        if old.identity:
            continue
        if new is None:
            yield Breach("drop-sequence", f"sequence {name} is dropped", (name,))
            continue
        for what in ("type", "increment", "minimum", "maximum", "cycle"):
            was, now = getattr(old, what), getattr(new, what)
            if was != now:
                yield Breach("sequence-changed", f"the {what} of sequence {name} was {was} and is {now}", (name,))
                break


def _compare_rights(before: Catalog, after: Catalog) -> Iterator[Breach]:
    routines = {routine.name for routine in after.routines}
    kept = {
        (grant.kind, _get_object_name(grant), grant.column, grant.grantee, grant.privilege) for grant in after.grants
    }
    for grant in before.grants:
        name = _get_object_name(grant)
        # What is gone altogether is reported as such.
        column = unquote_name(grant.column) if grant.column else None
        if grant.kind == "TABLE":
            relation = after.relations.get(name)
            there = relation is not None and (column is None or column in relation.columns)
        elif grant.kind == "SEQUENCE":
            there = name in after.sequences
        else:
            there = grant.kind == "SCHEMA" or name in routines
        held = {
            (grant.kind, name, part, who, grant.privilege)
            for part in (grant.column, None)
            for who in (grant.grantee, "PUBLIC")
        }
        if there and not kept & held:
            on = f"{grant.kind.lower()} {name}" + (f" ({column})" if column else "")
            grantee = unquote_name(grant.grantee)
            yield Breach("grant-revoked", f"{grantee} loses {grant.privilege} on {on}", (name, grantee))
    for name, old in before.relations.items():
        new = after.relations.get(name)
        if new is None or new.is_table != old.is_table:
            continue
        if new.row_security and not old.row_security:
            yield Breach("row-security-enabled", f"row level security is enabled on {name}", (name,))
        elif new.force_row_security and new.row_security and not old.force_row_security:
            yield Breach("row-security-enabled", f"row level security is forced on the owner of {name}", (name,))
        elif old.row_security and not new.row_security:
            yield Breach("row-security-disabled", f"row level security is disabled on {name}", (name,))
        elif old.row_security and old.force_row_security and not new.force_row_security:
            what = f"row level security is no longer forced on the owner of {name}"
            yield Breach("row-security-disabled", what, (name,))
        elif old.row_security:
            was, now = (
                {policy.name: policy.definition for policy in catalog.policies if policy.table == name}
                for catalog in (before, after)
            )
            for policy in sorted(was.keys() | now.keys()):
                if was.get(policy) != now.get(policy):
                    what = f"policy {policy} of {name} is {_describe_change(was, now, policy)}"
                    yield Breach("policy-changed", what, (name, policy))


def _get_object_name(grant: Grant) -> str:
    """Of a function the name alone: arguments may be added to it."""
    return unquote_name(grant.name.partition("(")[0] if grant.kind in ("FUNCTION", "PROCEDURE") else grant.name)


def _compare_triggers(before: Catalog, after: Catalog) -> Iterator[Breach]:
    was, now = ({(t.table, t.name): (t.definition, t.enabled) for t in catalog.triggers} for catalog in (before, after))
    for table, name in sorted(was.keys() | now.keys()):
        key = (table, name)
        old, new = before.relations.get(table), after.relations.get(table)
        if old and new and old.is_table == new.is_table and was.get(key) != now.get(key):
            how = _describe_change(was, now, key)
            yield Breach(f"trigger-{how}", f"trigger {name} on {table} is {how}", (table, name))


def _describe_change(was: Collection[object], now: Collection[object], key: object) -> str:
    return "added" if key not in was else "dropped" if key not in now else "changed"
