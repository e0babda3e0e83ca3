"""What a rule is, and the table of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.lint.schema_state import Seen
    from stackctl.migrate.parser.facts import Fact
    from stackctl.migrate.parser.token_reader import Name

Severity = Literal["error", "warning", "advice"]


@dataclass(frozen=True)
class Found:
    """What a rule says of one fact. `safe`: the SQL to write instead. `table`: the one whose size decides."""

    what: str
    safe: str
    table: Name | None = None


@dataclass(frozen=True)
class Rule:
    """`title` and `why` are for people: what the rule finds, and what goes wrong.

    `by_size`: it matters as much as the table is large, so that a database with a tiny one lowers it to advice.
    `check` is None for rules about the file itself.
    """

    id: str
    severity: Severity
    title: str
    why: str
    fact: type[Fact] | None = None
    check: Callable[[Any, Seen], Found | None] | None = None
    by_size: bool = False


RULES: dict[str, Rule] = {}

Check = Any  # a function of one kind of fact and what was seen


def rule(
    id_: str, severity: Severity, title: str, *, why: str, fact: type[Fact], by_size: bool = False
) -> Callable[[Check], Check]:
    """Register the function as the rule of that id."""

    def register(check: Check) -> Check:
        RULES[id_] = Rule(id_, severity, title, why, fact, check, by_size)
        return check

    return register


def about_the_file(id_: str, severity: Severity, title: str, why: str) -> Rule:
    """Register a rule that is not about a statement's facts."""
    RULES[id_] = Rule(id_, severity, title, why)
    return RULES[id_]
