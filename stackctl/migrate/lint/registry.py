"""What a rule is, and the table of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.lint.schema_state import FileState
    from stackctl.migrate.parser.facts import Fact
    from stackctl.migrate.parser.token_reader import QualifiedName

Severity = Literal["error", "warning", "advice"]


@dataclass(frozen=True)
class RuleMatch:
    """What a rule says of one fact. `safe`: the SQL to write instead. `table`: the one whose size decides."""

    what: str
    safe: str
    table: QualifiedName | None = None


@dataclass(frozen=True)
class LintRule:
    """`title` and `why` are for people: what the rule finds, and what goes wrong.

    `by_size`: it matters as much as the table is large, so that a database with a tiny one lowers it to advice.
    `check` is None for rules about the file itself.
    """

    id: str
    severity: Severity
    title: str
    why: str
    facts: tuple[type[Fact], ...] = ()
    check: Callable[[Any, FileState], RuleMatch | None] | None = None
    by_size: bool = False


RULES: dict[str, LintRule] = {}

CheckFunction = Any  # a function of one kind of fact and the state of the file


def rule(
    id_: str,
    severity: Severity,
    title: str,
    *,
    why: str,
    fact: type[Fact] | tuple[type[Fact], ...],
    by_size: bool = False,
) -> Callable[[CheckFunction], CheckFunction]:
    """Register the function as the rule of that id, about facts of that kind, or of these."""

    def register(check: CheckFunction) -> CheckFunction:
        RULES[id_] = LintRule(id_, severity, title, why, fact if isinstance(fact, tuple) else (fact,), check, by_size)
        return check

    return register


def register_file_rule(id_: str, severity: Severity, title: str, why: str) -> LintRule:
    """Register a rule that is not about a statement's facts."""
    RULES[id_] = LintRule(id_, severity, title, why)
    return RULES[id_]
