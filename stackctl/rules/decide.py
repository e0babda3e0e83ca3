"""One user before one set of rules: which of them match, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.rules.cel.evaluate import compile_condition
from stackctl.rules.cel.parse import ConditionSyntaxError, to_line_and_column
from stackctl.rules.cel.values import CompiledCondition, EvaluationError

if TYPE_CHECKING:
    from stackctl.rules.model import ActionType, Context, Rule, RuleSet

Status = Literal["matched", "not_matched", "disabled", "missing_condition", "error"]
Outcome = Literal["allow", "reject", "default-allow", "default-reject"]


@dataclass(frozen=True)
class Evaluation:
    """What one rule said. `error`: why its condition yields neither true nor false; free of the user's data."""

    rule: Rule
    status: Status
    error: str | None = None

    @property
    def action(self) -> ActionType:
        return self.rule.action.type


@dataclass(frozen=True)
class Decision:
    """`evaluations` end with the rule that decided. `restricted_by`: the first matching rule that restricts."""

    context: Context
    evaluations: tuple[Evaluation, ...]
    outcome: Outcome
    decided_by: str | None
    restricted_by: str | None

    @property
    def should_allow(self) -> bool:
        return self.outcome in ("allow", "default-allow")


class Judge:
    """A rule set with its conditions compiled, to judge many users."""

    def __init__(self, rules: RuleSet) -> None:
        self._default: Outcome = "default-allow" if rules.default_action == "allow" else "default-reject"
        self._rules = [(rule, _compile(rule)) for rule in rules.ordered]

    def decide(self, context: Context) -> Decision:
        """One pass over the rules, in their order; the first match that allows or rejects ends it."""
        fields = context.fields()
        evaluations: list[Evaluation] = []
        restricted_by: str | None = None
        for rule, condition in self._rules:
            evaluation = _evaluate(rule, condition, fields)
            evaluations.append(evaluation)
            if evaluation.status != "matched":
                continue
            if rule.action.type == "restrict":
                restricted_by = restricted_by or rule.id
            elif rule.action.type != "log":
                return Decision(context, tuple(evaluations), rule.action.type, rule.id, restricted_by)
        return Decision(context, tuple(evaluations), self._default, None, restricted_by)


def _compile(rule: Rule) -> CompiledCondition | str | None:
    """The condition as a function; what is wrong with it; or None, where nothing has to be evaluated."""
    if not rule.enabled or not (rule.condition or "").strip():
        return None
    try:
        return compile_condition(rule.condition or "")
    except ConditionSyntaxError as error:
        line, column = to_line_and_column(rule.condition or "", error.at)
        return f"line {line}, column {column}: {error.reason}"
    except EvaluationError as error:
        return str(error)


def _evaluate(rule: Rule, condition: CompiledCondition | str | None, fields: dict[str, object]) -> Evaluation:
    if not rule.enabled:
        return Evaluation(rule, "disabled")
    if condition is None:
        return Evaluation(rule, "missing_condition")
    if isinstance(condition, str):
        return Evaluation(rule, "error", condition)
    try:
        value = condition({**fields, **rule.lists} if rule.lists else fields)
    except EvaluationError as error:
        return Evaluation(rule, "error", str(error))
    if value is True or value is False:
        return Evaluation(rule, "matched" if value else "not_matched")
    return Evaluation(rule, "error", "the condition yields something else than true or false")
