"""Rules about constraints: they read every row of the table unless they are added in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, READS_ALL, SPLIT, suggest_allow
from stackctl.migrate.parser.facts import ConstraintAdded, ConstraintValidated

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState
    from stackctl.migrate.parser.facts import ConstraintDefinition
    from stackctl.migrate.parser.token_reader import QualifiedName

_BUILDS = "its index is built while everything else on the table waits, reads included"


@rule("constraint-not-valid-missing", "error", "a check is added without NOT VALID", why=READS_ALL,
      fact=ConstraintAdded, by_size=True)  # fmt: skip
def constraint_not_valid_missing(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint = fact.constraint
    if constraint.kind not in ("check", "not null") or constraint.not_valid or _exempt(fact, state):
        return None
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", _in_two_steps(fact), fact.table)


@rule("foreign-key-not-valid-missing", "error", "a foreign key is added without NOT VALID",
      why="all rows are looked up in the other table, and until that is done writes to both wait",
      fact=ConstraintAdded, by_size=True)  # fmt: skip
def foreign_key_not_valid_missing(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint = fact.constraint
    if constraint.kind != "foreign key" or constraint.not_valid or _exempt(fact, state):
        return None
    if fact.added_column and fact.column and not fact.column.filled:
        return None  # a new column without values has nothing to look up
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", _in_two_steps(fact), fact.table)


@rule("validated-in-same-transaction", "error", "a constraint is validated in the transaction that added it",
      why="the lock that adding took is held while all rows are read: NOT VALID has gained nothing",
      fact=ConstraintValidated)  # fmt: skip
def validated_in_same_transaction(fact: ConstraintValidated, state: FileState) -> RuleMatch | None:
    if not state.has_added_not_valid(fact.table, fact.name) or state.has_created("table", fact.table):
        return None
    name = fact.table.sibling(fact.name)
    return RuleMatch(
        f"constraint {name.shown} of {fact.table} is validated",
        f"{OUTSIDE}ALTER TABLE {fact.table} VALIDATE CONSTRAINT {name.shown};",
    )


@rule("unique-not-using-index", "error", "a unique constraint is added without USING INDEX", why=_BUILDS,
      fact=ConstraintAdded, by_size=True)  # fmt: skip
def unique_not_using_index(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint = fact.constraint
    if constraint.kind != "unique" or constraint.using_index or _exempt(fact, state):
        return None
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", _from_an_index(fact), fact.table)


@rule("primary-key-not-using-index", "error", "a primary key is added without USING INDEX",
      why=_BUILDS + "; columns that are not NOT NULL yet are read as well", fact=ConstraintAdded,
      by_size=True)  # fmt: skip
def primary_key_not_using_index(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint = fact.constraint
    if constraint.kind != "primary key" or constraint.using_index or _exempt(fact, state):
        return None
    safe = "-- its columns must be NOT NULL before (see set-not-null)\n" + _from_an_index(fact)
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", safe, fact.table)


@rule("exclusion-constraint-added", "error", "an exclusion constraint is added",
      why=_BUILDS + "; PostgreSQL knows no other way", fact=ConstraintAdded, by_size=True)  # fmt: skip
def exclusion_constraint_added(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    if fact.constraint.kind != "exclude" or _exempt(fact, state):
        return None
    safe = suggest_allow("exclusion-constraint-added", "in a maintenance window, because …", fact.text)
    return RuleMatch(f"{_described(fact.constraint)} is added to {fact.table}", safe, fact.table)


def _exempt(fact: ConstraintAdded, state: FileState) -> bool:
    return state.has_created("type" if fact.domain else "table", fact.table)


def _described(constraint: ConstraintDefinition) -> str:
    return f"constraint {constraint.name}, {constraint.body}," if constraint.named else constraint.body


def _label(table: QualifiedName, constraint: ConstraintDefinition) -> str:
    return table.sibling(constraint.name).shown


def _body(constraint: ConstraintDefinition, table: QualifiedName) -> str:
    """The constraint as a table's, where it stood in a column's definition."""
    if constraint.body.upper().startswith("REFERENCES"):
        return f"FOREIGN KEY ({table.sibling(constraint.columns[0]).shown}) {constraint.body}"
    return constraint.body


def _in_two_steps(fact: ConstraintAdded) -> str:
    table, label = fact.table, _label(fact.table, fact.constraint)
    what = "DOMAIN" if fact.domain else "TABLE"
    first = ""
    if fact.added_column and fact.column:
        first = f"ALTER TABLE {table} ADD COLUMN {fact.column.shown} {fact.column.type.text};\n"
    return (
        f"{first}ALTER {what} {table} ADD CONSTRAINT {label} {_body(fact.constraint, table)} NOT VALID;\n"
        f"{OUTSIDE}ALTER {what} {table} VALIDATE CONSTRAINT {label};"
    )


def _from_an_index(fact: ConstraintAdded) -> str:
    table, constraint = fact.table, fact.constraint
    label = _label(table, constraint)
    columns = ", ".join(table.sibling(column).shown for column in constraint.columns)
    nulls = " NULLS NOT DISTINCT" if "NULLS NOT DISTINCT" in constraint.body.upper() else ""
    first = ""
    if fact.added_column and fact.column:
        first = f"ALTER TABLE {table} ADD COLUMN {fact.column.shown} {fact.column.type.text};\n"
    return (
        f"{first}{OUTSIDE}CREATE UNIQUE INDEX CONCURRENTLY {label} ON {table} ({columns}){nulls};\n"
        f"{SPLIT}ALTER TABLE {table} ADD CONSTRAINT {label} {constraint.kind.upper()} USING INDEX {label};"
    )
