"""The part of the contract that constraints and indexes make up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.compatibility.contract_rules import Breach
from stackctl.migrate.schema.catalog import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackctl.migrate.schema.catalog import Catalog, Constraint

_ADDED = {"c": "check-added", "f": "foreign-key-added", "x": "exclusion-added"}
_DROPPED = "fx"
_NO_ACTION = ("a", "r")


def find_constraint_breaches(before: Catalog, after: Catalog) -> Iterator[Breach]:
    """Breaches on tables that both hold."""
    yield from _compare_unique_keys(before, after)
    yield from _compare_indexes(before, after)
    was, now = _index_by_name(before), _index_by_name(after)
    same = {(c.table, c.kind, _get_definition(c)) for c in now.values()} & {
        (c.table, c.kind, _get_definition(c)) for c in was.values()
    }
    for key, new in now.items():
        if new.table not in before.relations:
            yield from _check_foreign_key_onto(new, before)
            continue
        old = was.get(key)
        if old is not None and new.kind == "c" and _get_definition(old) != _get_definition(new):
            if _has_retyped_column(new, before, after):
                continue  # only the casts in its text changed with the column, which is reported
            what = f"constraint {new.name} of {new.table} was {_get_definition(old)} and is {_get_definition(new)}"
            yield Breach("constraint-changed", what, (new.table, new.name))
        elif (new.table, new.kind, _get_definition(new)) not in same:
            if all(column not in before.relations[new.table].columns for column in new.columns) and new.columns:
                if new.kind == "f":
                    yield from _check_foreign_key_onto(new, before)
                continue  # the running version leaves those columns out
            yield Breach(_ADDED[new.kind], f"{new.table} gets {_get_definition(new)}", (new.table, new.name))
    for key, old in was.items():
        if key in now or not _has_columns(after, old.table, old.columns):
            continue
        if (old.table, old.kind, _get_definition(old)) in same:
            yield Breach(
                "constraint-renamed", f"constraint {old.name} of {old.table} has another name", (old.table, old.name)
            )
        elif old.kind in _DROPPED:
            what, weight = f"constraint {old.name} of {old.table} is dropped", "warning" if old.kind == "f" else None
            yield Breach("drop-constraint", what, (old.table, old.name), weight)


def _has_retyped_column(constraint: Constraint, before: Catalog, after: Catalog) -> bool:
    old, new = (catalog.relations[constraint.table].columns for catalog in (before, after))
    return any(name in old and old[name].type != new[name].type for name in constraint.columns)


def _index_by_name(catalog: Catalog) -> dict[tuple[str, str], Constraint]:
    """Those that are no keys."""
    return {(c.table, c.name): c for c in catalog.constraints if c.kind not in "pu" and not c.inherited}


def _get_definition(constraint: Constraint) -> str:
    """Without NOT VALID: it holds for what is written from now on all the same."""
    return constraint.definition.removesuffix(" NOT VALID")


def _check_foreign_key_onto(key: Constraint, before: Catalog) -> Iterator[Breach]:
    """A foreign key of something new onto a table that the running version deletes from."""
    if key.kind == "f" and key.referenced is not None and key.on_delete in _NO_ACTION:
        referenced = key.referenced.strip('"')
        if referenced in before.relations and referenced != key.table:
            yield Breach(
                "foreign-key-onto", f"{key.table} refers to {referenced} ({key.definition})", (key.table, referenced)
            )


def _has_columns(after: Catalog, table: str, columns: Iterable[str]) -> bool:
    """Whether it is still a table, with these columns. A view in its place has the constraints of what it shows."""
    relation = after.relations.get(table)
    return relation is not None and relation.is_table and all(column in relation.columns for column in columns)


def _compare_unique_keys(before: Catalog, after: Catalog) -> Iterator[Breach]:
    was, now = _find_unique_keys(before), _find_unique_keys(after)
    for (table, key), name in now.items():
        if (table, key) in was or table not in before.relations:
            continue
        old_columns = before.relations[table].columns
        new_columns = after.relations[table].columns
        columns = name.columns
        # Rows of the running version leave such a column null or to a default that gives each row its own value.
        loose = any(
            column not in old_columns
            and (new_columns[column].expression is None or "(" in (new_columns[column].expression or ""))
            and "NULLS NOT DISTINCT" not in key
            for column in columns
        )
        if not loose:
            yield Breach("unique-added", f"{table} gets UNIQUE {key}", (table, name.name))
    for (table, key), name in was.items():
        if not _has_columns(after, table, name.columns):
            continue
        if (table, key) not in now:
            rule = "drop-index" if isinstance(name, Index) else "drop-constraint"
            yield Breach(rule, f"UNIQUE {key} of {table} is dropped", (table, name.name), "breaking")
        elif now[table, key].name != name.name:
            what = f"{name.name} of {table} is now called {now[table, key].name}"
            yield Breach("constraint-renamed", what, (table, name.name))


def _find_unique_keys(catalog: Catalog) -> dict[tuple[str, str], Constraint | Index]:
    """What makes rows unique, by table and the text of the key: ON CONFLICT asks for no more."""
    found: dict[tuple[str, str], Constraint | Index] = {}
    for constraint in catalog.constraints:
        if constraint.kind in "pu" and not constraint.inherited:
            key = re.sub(r"^(PRIMARY KEY|UNIQUE) ", "", constraint.definition)
            # Where the text of an index has it.
            key = re.sub(r"^NULLS NOT DISTINCT (.*)", r"\1 NULLS NOT DISTINCT", key)
            found[constraint.table, key] = constraint
    for index in catalog.indexes:
        if index.unique and index.valid and not index.inherited:
            found.setdefault((index.table, _get_key(index)), index)
    return found


def _get_key(index: Index) -> str:
    return index.definition.partition(" USING ")[2].removeprefix("btree ")


def _compare_indexes(before: Catalog, after: Catalog) -> Iterator[Breach]:
    kept = {(index.table, _get_key(index)) for index in after.indexes} | set(_find_unique_keys(after))
    for index in before.indexes:
        there = _has_columns(after, index.table, index.columns)
        if there and not index.unique and not index.inherited and (index.table, _get_key(index)) not in kept:
            yield Breach("drop-index", f"index {index.name} of {index.table} is dropped", (index.table, index.name))
