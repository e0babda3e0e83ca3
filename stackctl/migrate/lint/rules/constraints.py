"""Rules about constraints: they read every row of the table unless they are added in steps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, READS_ALL, SPLIT, suggest_allow
from stackctl.migrate.parser.facts import ConstraintAdded, ConstraintValidated, IndexBuilt

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
    safe = _in_two_steps(fact)
    if state.is_partitioned(fact.table) and not state.schema.is_known_to_have(18):
        reason = "the partitions have it, validated, already: …"
        safe = "-- before PostgreSQL 18, a partitioned table takes no NOT VALID: add it so to each partition first\n"
        safe += suggest_allow("foreign-key-not-valid-missing", reason, fact.text)
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", safe, fact.table)


@rule("validated-in-same-transaction", "error",
      "a constraint is validated in the transaction that added it, or that has locked its table",
      why="the lock that was taken before is held while all rows are read: NOT VALID has gained nothing",
      fact=ConstraintValidated)  # fmt: skip
def validated_in_same_transaction(fact: ConstraintValidated, state: FileState) -> RuleMatch | None:
    if state.has_created("table", fact.table):
        return None
    if not state.has_added_not_valid(fact.table, fact.name) and not state.holds_lock(fact.table):
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
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", _from_an_index(fact, state), fact.table)


@rule("primary-key-not-using-index", "error", "a primary key is added without USING INDEX",
      why=_BUILDS + "; columns that are not NOT NULL yet are read as well", fact=ConstraintAdded,
      by_size=True)  # fmt: skip
def primary_key_not_using_index(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint = fact.constraint
    if constraint.kind != "primary key" or constraint.using_index or _exempt(fact, state):
        return None
    safe = "-- its columns must be NOT NULL before (see set-not-null)\n" + _from_an_index(fact, state)
    return RuleMatch(f"{_described(constraint)} is added to {fact.table}", safe, fact.table)


@rule("primary-key-nullable", "advice", "a primary key is made of an index whose columns may be null",
      why="they are made NOT NULL, for which all rows are read while everything else on the table waits",
      fact=ConstraintAdded, by_size=True)  # fmt: skip
def primary_key_nullable(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint, table = fact.constraint, fact.table
    if constraint.kind != "primary key" or not constraint.using_index or _exempt(fact, state):
        return None
    known = state.schema.indexes.get(table.sibling(constraint.using_index))
    if known and all(state.is_never_null(table, column) for column in known.columns):
        return None
    what = f"the columns of {constraint.using_index} become NOT NULL"
    return RuleMatch(what, "-- set them NOT NULL before, after a validated check (see set-not-null)", table)


@rule("exclusion-added", "error", "an exclusion constraint is added",
      why=_BUILDS + "; PostgreSQL knows no other way. Overlapping rows of the previous version are refused",
      fact=ConstraintAdded, by_size=True)  # fmt: skip
def exclusion_added(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    if fact.constraint.kind != "exclude" or _exempt(fact, state):
        return None
    safe = suggest_allow("exclusion-added", "in a maintenance window, because …", fact.text)
    return RuleMatch(f"{_described(fact.constraint)} is added to {fact.table}", safe, fact.table)


@rule("unique-added", "warning", "what is in a table is to be unique",
      why="what the previous version writes twice is refused, and so is the migration if it has done so already",
      fact=(ConstraintAdded, IndexBuilt))  # fmt: skip
def unique_added(fact: ConstraintAdded | IndexBuilt, state: FileState) -> RuleMatch | None:
    if isinstance(fact, IndexBuilt):
        columns, unique, label = fact.columns, fact.unique, f"index {fact.name}" if fact.name else "an index"
    else:
        constraint = fact.constraint
        columns, label = constraint.columns, _described(constraint)
        unique = constraint.kind in ("unique", "primary key") and not constraint.using_index
    # Rows of the previous version leave a new column null, or to its default.
    if not unique or any(state.has_added_column(fact.table, column) for column in columns):
        return None
    if not state.is_live(fact.table):
        return None
    what = f"{label} makes rows of {fact.table} unique"
    safe = suggest_allow("unique-added", "no released version writes any twice: …", _alone(fact))
    return RuleMatch(what, OUTSIDE + safe)


def note_unique(fact: ConstraintAdded | IndexBuilt, state: FileState) -> str:
    """The comment that the index needs where another finding advises to build it in another way."""
    return (
        "-- stackctl:allow unique-added no released version writes any twice: …\n" if unique_added(fact, state) else ""
    )


def _alone(fact: ConstraintAdded | IndexBuilt) -> str:
    """The index that makes it unique, built so that nobody waits."""
    if isinstance(fact, ConstraintAdded):
        columns = ", ".join(fact.table.sibling(column).shown for column in fact.constraint.columns)
        return f"CREATE UNIQUE INDEX CONCURRENTLY {_label(fact.table, fact.constraint)} ON {fact.table} ({columns})"
    return re.sub(r"\bINDEX\b(?!\s+CONCURRENTLY\b)", "INDEX CONCURRENTLY", fact.text, count=1, flags=re.IGNORECASE)


@rule("check-added", "advice", "a check is added",
      why="rows of the previous version that violate it are refused", fact=ConstraintAdded)  # fmt: skip
def check_added(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    return _added(fact, state, "check", "check-added")


@rule("foreign-key-added", "advice", "a foreign key is added",
      why="rows of the previous version without their parent are refused", fact=ConstraintAdded)  # fmt: skip
def foreign_key_added(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    return _added(fact, state, "foreign key", "foreign-key-added")


def _added(fact: ConstraintAdded, state: FileState, kind: str, rule_id: str) -> RuleMatch | None:
    constraint = fact.constraint
    if constraint.kind != kind or fact.domain or (fact.table, constraint.name) in state.dropped_constraints:
        return None
    if constraint.columns and all(state.has_added_column(fact.table, column) for column in constraint.columns):
        return None
    if not state.is_live(fact.table):
        return None
    what = f"{_described(constraint)} holds for new rows of {fact.table}"
    text = fact.text if constraint.not_valid else f"{fact.text} NOT VALID"
    return RuleMatch(what, suggest_allow(rule_id, "what released versions write satisfies it: …", text))


@rule("foreign-key-onto", "advice", "something new refers to a table without ON DELETE CASCADE or SET NULL",
      why="the previous version can't delete rows of that table any more once others refer to them",
      fact=ConstraintAdded)  # fmt: skip
def foreign_key_onto(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    constraint = fact.constraint
    referred = constraint.references
    if referred is None or referred == fact.table or constraint.on_delete not in ("", "NO ACTION", "RESTRICT"):
        return None
    if not all(state.has_added_column(fact.table, column) for column in constraint.columns):
        return None  # that is foreign-key-added
    if not state.is_live(referred):
        return None
    return RuleMatch(f"{fact.table} refers to {referred}", "-- behind REFERENCES: ON DELETE CASCADE or SET NULL")


@rule("foreign-key-without-index", "advice", "a foreign key whose columns no index begins with",
      why="each row that is deleted from the other table, or gets another key, reads the whole table",
      fact=ConstraintAdded)  # fmt: skip
def foreign_key_without_index(fact: ConstraintAdded, state: FileState) -> RuleMatch | None:
    table, columns = fact.table, fact.constraint.columns
    if fact.constraint.kind != "foreign key" or state.schema.has_index(table, columns):
        return None
    if state.whole.has_index(table, columns):
        return None
    if state.database and state.database.has_index(table, columns):
        return None
    shown = ", ".join(table.sibling(column).shown for column in columns)
    safe = f"CREATE INDEX CONCURRENTLY ON {table} ({shown});"
    return RuleMatch(f"no index of {table} begins with {shown}", OUTSIDE + safe)


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
    if fact.domain:
        first = "-- stackctl:allow type-changed no released version minds: …\n"
    return (
        f"{first}ALTER {what} {table} ADD CONSTRAINT {label} {_body(fact.constraint, table)} NOT VALID;\n"
        f"{OUTSIDE}ALTER {what} {table} VALIDATE CONSTRAINT {label};"
    )


def _from_an_index(fact: ConstraintAdded, state: FileState) -> str:
    table, constraint = fact.table, fact.constraint
    label, note = _label(table, constraint), note_unique(fact, state)
    columns = ", ".join(table.sibling(column).shown for column in constraint.columns)
    nulls = " NULLS NOT DISTINCT" if "NULLS NOT DISTINCT" in constraint.body.upper() else ""
    first = ""
    if fact.added_column and fact.column:
        first = f"ALTER TABLE {table} ADD COLUMN {fact.column.shown} {fact.column.type.text};\n"
    return (
        f"{first}{OUTSIDE}{note}CREATE UNIQUE INDEX CONCURRENTLY {label} ON {table} ({columns}){nulls};\n"
        f"{SPLIT}ALTER TABLE {table} ADD CONSTRAINT {label} {constraint.kind.upper()} USING INDEX {label};"
    )
