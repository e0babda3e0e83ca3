"""Rules about SQL that can't be read, and about the comments that let findings pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, register_file_rule, rule
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ColumnRenamed,
    ConstraintAdded,
    DynamicSql,
    ObjectCreated,
    ObjectRenamed,
    UnknownStatement,
)

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_LONGEST = 63  # bytes of a name


@rule("dynamic-sql", "warning", "SQL that is put together when it runs, or a procedure that is called",
      why="what it does can't be seen here", fact=DynamicSql)  # fmt: skip
def dynamic_sql(fact: DynamicSql, state: FileState) -> RuleMatch | None:
    first = " ".join(fact.text.split())
    shown = first if len(first) <= 60 else f"{first[:57]}…"
    return RuleMatch(shown, "-- write the statements out, or say what they do:\n-- stackctl:allow dynamic-sql it …")


@rule("not-understood", "error", "a statement that is not known here", why="nothing can be said about it",
      fact=UnknownStatement)  # fmt: skip
def not_understood(fact: UnknownStatement, state: FileState) -> RuleMatch | None:
    return RuleMatch(fact.what, "-- read it yourself, then say so:\n-- stackctl:allow not-understood it …")


@rule("identifier-too-long", "warning", "a name of more than 63 bytes",
      why="the server cuts it off and says no more than a notice; two names that begin alike are then the same",
      fact=(ObjectCreated, ColumnAdded, ConstraintAdded, ObjectRenamed, ColumnRenamed))  # fmt: skip
def identifier_too_long(
    fact: ObjectCreated | ColumnAdded | ConstraintAdded | ObjectRenamed | ColumnRenamed, state: FileState
) -> RuleMatch | None:
    match fact:
        case ObjectCreated(name=name):
            given = name.name
        case ColumnAdded(column=column):
            given = column.name
        case ConstraintAdded(constraint=constraint):
            given = constraint.name if constraint.named else ""  # the server's own guess is cut to fit
        case ObjectRenamed(to=to) | ColumnRenamed(to=to):
            given = to
    if len(given.encode()) <= _LONGEST:
        return None
    kept = given.encode()[:_LONGEST].decode(errors="ignore")
    return RuleMatch(f"{given} becomes {kept}", "-- give it a shorter name")


UNREADABLE = register_file_rule(
    "unreadable-file", "error", "a file that `migrate up` would not read", "`migrate up` stops before it runs anything"
)
SYNTAX = register_file_rule("syntax-error", "error", "a syntax error that the database named", "the migration fails")
REPEAT_ANSWER = register_file_rule(
    "repeat-answer", "error", "a repeated statement whose row does not say whether to go on",
    "the migration fails where nobody can tell a backfill that is done from one that is not"
)  # fmt: skip
NO_REASON = register_file_rule(
    "allow-without-reason", "warning", "`stackctl:allow RULE` without a reason", "whoever reads it later can't judge it"
)
NO_RULE = register_file_rule(
    "allow-unknown-rule", "warning", "`stackctl:allow` of no rule, or one that does not exist", "it silences nothing"
)
UNUSED = register_file_rule(
    "allow-unused", "warning", "`stackctl:allow` that silences nothing", "it hides the next one"
)
