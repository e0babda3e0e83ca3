"""Rules about what can't run, or can't be used, in the transaction of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, SPLIT
from stackctl.migrate.parser.facts import EnumValueAdded, EnumValueUsed, TransactionControl, TransactionRefused

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState


@rule("cannot-run-in-transaction", "error", "CONCURRENTLY, VACUUM and the like inside the file's transaction",
      why="the server refuses it inside a transaction, so the migration fails",
      fact=(TransactionRefused, EnumValueAdded))  # fmt: skip
def cannot_run_in_transaction(fact: TransactionRefused | EnumValueAdded, state: FileState) -> RuleMatch | None:
    if state.outside:
        return None
    if isinstance(fact, EnumValueAdded):
        if not state.schema.is_older_than(12) or state.has_created("type", fact.type):
            return None
        return RuleMatch(f"ALTER TYPE {fact.type} ADD VALUE, before PostgreSQL 12", f"{OUTSIDE}{fact.text};")
    return RuleMatch(fact.how, f"{OUTSIDE}{fact.text};")


@rule("transaction-control", "error", "BEGIN, COMMIT and the like in a file",
      why="a file commits together with its history row; `migrate up` refuses it", fact=TransactionControl)  # fmt: skip
def transaction_control(fact: TransactionControl, state: FileState) -> RuleMatch | None:
    if fact.in_block and state.outside:
        return None
    return RuleMatch(fact.word, f"-- leave {fact.word} out; for what can't run in a transaction:\n{OUTSIDE.rstrip()}")


@rule("enum-value-used", "error", "an enum value is used in the transaction that added it",
      why="the server refuses it until the value is committed (55P04)", fact=EnumValueUsed)  # fmt: skip
def enum_value_used(fact: EnumValueUsed, state: FileState) -> RuleMatch | None:
    return RuleMatch(
        f"the new value '{fact.value}' of {fact.type} is used",
        f"{OUTSIDE}ALTER TYPE {fact.type} ADD VALUE IF NOT EXISTS '{fact.value}';\n{SPLIT}{fact.text};",
    )
