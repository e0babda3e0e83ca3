"""What a change of a schema can do to the version of the application that still runs, and the way round it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["breaking", "warning"]


@dataclass(frozen=True)
class ContractRule:
    """`why` completes "…: " after what changed; `safe` is what to do instead."""

    severity: Severity
    why: str
    safe: str


_EXPAND = "add the new one, let both versions write both, backfill, and take the old one away in a later release"
_LATER = "release a version that no longer uses it first, and drop it with the release after that"
_WRITES_FIRST = "release a version whose writes satisfy it first; add the constraint with the release after that"
_ONE_STEP_BACK = "leave it as it is until no running version needs it"

RULES: dict[str, ContractRule] = {
    "drop-table": ContractRule("breaking", "every statement of the running version on it fails", _LATER),
    "rename-table": ContractRule(
        "breaking",
        "every statement of the running version on the old name fails",
        "keep the old name as a view over the new one until no running version uses it",
    ),
    "drop-view": ContractRule("breaking", "every query of the running version on it fails", _LATER),
    "view-changed": ContractRule("warning", "the running version reads other rows from it", "compare what both return"),
    "relation-kind": ContractRule(
        "warning",
        "the running version's writes may fail, and so does COPY",
        "make sure that the view can be written to as the table could",
    ),
    "drop-column": ContractRule("breaking", "statements of the running version that name it fail", _LATER),
    "rename-column": ContractRule("breaking", "statements of the running version that name the old one fail", _EXPAND),
    "column-type-change": ContractRule("breaking", "the running version writes and reads the old type", _EXPAND),
    "not-null-without-default": ContractRule(
        "breaking",
        "the running version inserts rows without it, and they are refused",
        "give it a default, or add it nullable and set NOT NULL with a later release",
    ),
    "set-not-null": ContractRule("breaking", "what the running version writes without it is refused", _WRITES_FIRST),
    "drop-not-null": ContractRule(
        "warning",
        "the running version reads the column without expecting NULL",
        "release a version that reads NULL there first",
    ),
    "column-generated": ContractRule(
        "breaking", "what the running version writes to it is refused", "release a version that does not write it first"
    ),
    "drop-default": ContractRule(
        "breaking", "the running version leaves the column out, and such rows are refused, or get NULL", _ONE_STEP_BACK
    ),
    "drop-generated": ContractRule(
        "breaking", "the running version leaves the column out, and such rows are refused, or get NULL", _ONE_STEP_BACK
    ),
    "default-changed": ContractRule(
        "warning",
        "rows of the running version that leave the column out get another value",
        "make sure that it knows what to do with the new value",
    ),
    "check-added": ContractRule("breaking", "rows of the running version that violate it are refused", _WRITES_FIRST),
    "foreign-key-added": ContractRule(
        "breaking", "rows of the running version without their parent are refused", _WRITES_FIRST
    ),
    "foreign-key-onto": ContractRule(
        "warning",
        "the running version can't delete rows of that table any more once others refer to them",
        "choose ON DELETE CASCADE or SET NULL, or release a version that deletes the referring rows first",
    ),
    "unique-added": ContractRule("breaking", "what the running version writes twice is refused", _WRITES_FIRST),
    "exclusion-added": ContractRule("breaking", "overlapping rows of the running version are refused", _WRITES_FIRST),
    "constraint-changed": ContractRule(
        "warning",
        "rows of the running version may be refused",
        "make sure that whatever passed the old one passes the new one",
    ),
    "drop-constraint": ContractRule(
        "breaking",
        "ON CONFLICT on these columns fails in the running version, duplicates or rows without a parent get in, and "
        "cascades end",
        _ONE_STEP_BACK,
    ),
    "constraint-renamed": ContractRule(
        "warning", "a version that knows the constraint's name does not find it in errors", _ONE_STEP_BACK
    ),
    "drop-index": ContractRule(
        "warning", "queries of the running version may need it", "see in pg_stat_user_indexes whether it is used"
    ),
    "drop-enum-value": ContractRule("breaking", "the running version still writes and compares the value", _LATER),
    "rename-enum-value": ContractRule(
        "breaking",
        "the running version writes the old value and does not know the new one",
        "add the new value, release a version that knows both, and move the rows over",
    ),
    "drop-type": ContractRule("breaking", "statements of the running version that name it fail", _LATER),
    "rename-type": ContractRule("breaking", "statements of the running version that name the old one fail", _EXPAND),
    "type-changed": ContractRule("breaking", "the running version reads and writes it as it was", _EXPAND),
    "drop-function": ContractRule("breaking", "calls of the running version fail", _LATER),
    "rename-function": ContractRule("breaking", "calls of the running version fail", _EXPAND),
    "function-changed": ContractRule(
        "breaking",
        "calls of the running version find no function that fits, or read another result",
        "keep the old one beside the new one, or give the new arguments defaults",
    ),
    "drop-sequence": ContractRule("breaking", "nextval fails in the running version", _LATER),
    "rename-sequence": ContractRule("breaking", "nextval fails in the running version", _EXPAND),
    "sequence-changed": ContractRule(
        "warning", "the running version draws other numbers", "make sure that no number can come twice"
    ),
    "grant-revoked": ContractRule(
        "breaking", "a running version that connects as this role is refused", _ONE_STEP_BACK
    ),
    "drop-owned": ContractRule(
        "breaking", "a running version that connects as this role is refused", "drop and revoke by name what is to go"
    ),
    "row-security-enabled": ContractRule(
        "breaking",
        "roles other than the owner see only rows that a policy lets through",
        "release a version that sets what the policies ask for first, and enable it with the release after that",
    ),
    "row-security-disabled": ContractRule(
        "warning",
        "every role that may read the table sees all of its rows",
        "make sure that nobody may see more than before",
    ),
    "policy-changed": ContractRule(
        "warning", "the running version may see other rows", "compare what both let through"
    ),
    "trigger-added": ContractRule(
        "warning",
        "it runs inside the running version's statements",
        "make sure that it neither fails nor waits for what that version does",
    ),
    "trigger-dropped": ContractRule("warning", "the running version may rely on what it did", _ONE_STEP_BACK),
    "trigger-changed": ContractRule(
        "warning",
        "it runs inside the running version's statements",
        "make sure that it neither fails nor waits for what that version does",
    ),
}
# What writes a table anew, by lint's word for it.
REWRITES = (
    "volatile-default", "default-not-known", "serial-added", "generated-column-added", "column-type-change",
    "domain-column-added", "vacuum-full-or-cluster", "table-rewrite",
)  # fmt: skip
# What a stackctl:allow comment may name for `migrate check`: these, and what only trying a file shows.
ALLOWABLE = frozenset({*RULES, *REWRITES, "fails-on-rows"})


@dataclass(frozen=True)
class Breach:
    """A change that can hurt the running version. `names`: what to look for in the file that makes it.

    `weight`: where it weighs more, or less, than its rule does as a rule.
    """

    rule: str
    what: str
    names: tuple[str, ...]
    weight: Severity | None = None

    @property
    def severity(self) -> Severity:
        return self.weight or RULES[self.rule].severity

    @property
    def message(self) -> str:
        return f"{self.what}: {RULES[self.rule].why}"

    @property
    def suggestion(self) -> str:
        return RULES[self.rule].safe
