"""Rules about SQL that can't be read, and about the comments that let findings pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import Found, about_the_file, rule
from stackctl.migrate.parser.facts import Dynamic, Unknown

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import Seen


@rule("dynamic-sql", "warning", "SQL that is put together when it runs, or a procedure that is called",
      why="what it does can't be seen here", fact=Dynamic)  # fmt: skip
def dynamic_sql(fact: Dynamic, seen: Seen) -> Found | None:
    first = " ".join(fact.text.split())
    shown = first if len(first) <= 60 else f"{first[:57]}…"
    return Found(shown, "-- write the statements out, or say what they do:\n-- stackctl:allow dynamic-sql it …")


@rule("not-understood", "error", "a statement that is not known here", why="nothing can be said about it",
      fact=Unknown)  # fmt: skip
def not_understood(fact: Unknown, seen: Seen) -> Found | None:
    return Found(fact.what, "-- read it yourself, then say so:\n-- stackctl:allow not-understood it …")


UNREADABLE = about_the_file(
    "unreadable-file", "error", "a file that `migrate up` would not read", "`migrate up` stops before it runs anything"
)
SYNTAX = about_the_file("syntax-error", "error", "a syntax error that the database named", "the migration fails")
NO_REASON = about_the_file(
    "allow-without-reason", "warning", "`stackctl:allow RULE` without a reason", "whoever reads it later can't judge it"
)
NO_RULE = about_the_file(
    "allow-unknown-rule", "warning", "`stackctl:allow` of no rule, or one that does not exist", "it silences nothing"
)
UNUSED = about_the_file("allow-unused", "warning", "`stackctl:allow` that silences nothing", "it hides the next one")
