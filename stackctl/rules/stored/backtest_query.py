"""The query of a backtest: the users, the answer of each rule, what comes of them, and what came of them since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from psycopg import sql

from stackctl.postgres.statements import load_statements
from stackctl.rules.cel.to_sql import to_predicate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.rules.model import Rule, RuleSet

_MOST_COLUMNS = 1_600  # for answers: PostgreSQL takes 1,664 in all

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class Scope:
    """Which users. `since`: UTC; `sample`: at most so many; `auth_method`: of those of whom it is not known."""

    since: datetime | None = None
    tenancy: UUID | None = None
    sample: int | None = None
    auth_method: str | None = None


class RuleColumns:
    """One rule set's columns in the query: the conditions of rules that count, the decision, the restriction."""

    def __init__(self, prefix: str, rules: RuleSet) -> None:
        self.rules = rules
        self.prefix = prefix
        self.packed = False  # whether all answers are in one column, an array: 0, 1, or 2 for none
        self.counting = [rule for rule in rules.ordered if rule.enabled and (rule.condition or "").strip()]

    def name(self, what: int | str) -> sql.Composable:
        if self.packed and isinstance(what, int):  # an element is found at once in an array without NULL only
            return sql.SQL("(nullif({}[{}], 2) = 1)").format(self.name("_answers"), sql.Literal(what + 1))
        return sql.Identifier(f"{self.prefix}{what}")

    def conditions(self) -> list[sql.Composable]:
        if self.packed:
            answers = [
                sql.SQL("coalesce(({})::int, 2)").format(to_predicate(rule.condition or "", rule.lists))
                for rule in self.counting
            ]
            return [sql.SQL("ARRAY[{}]::int[] AS {}").format(sql.SQL(", ").join(answers), self.name("_answers"))]
        return [
            sql.SQL("{} AS {}").format(to_predicate(rule.condition or "", rule.lists), self.name(place))
            for place, rule in enumerate(self.counting)
        ]

    def decision(self) -> sql.Composable:
        """The place of the rule that decides; behind all of them where none does."""
        return self._first(lambda rule: rule.action.type in ("allow", "reject"), len(self.counting))

    def restriction(self) -> sql.Composable:
        return self._first(lambda rule: rule.action.type == "restrict", len(self.counting))

    def _first(self, wanted: Callable[[Rule], bool], otherwise: int) -> sql.Composable:
        cases = [
            sql.SQL("WHEN {} THEN {}").format(self.name(place), sql.Literal(place))
            for place, rule in enumerate(self.counting)
            if wanted(rule)
        ]
        if not cases:
            return sql.Literal(otherwise)
        return sql.SQL("CASE {} ELSE {} END").format(sql.SQL(" ").join(cases), sql.Literal(otherwise))

    def is_undecided(self) -> sql.Composable:
        """Whether a rule that is reached has no value. Of each, by its place, so that what is behind does not count."""
        cases = [
            sql.SQL("WHEN {} IS NULL THEN {}").format(self.name(place), sql.Literal(place))
            for place in range(len(self.counting))
        ]
        if not cases:
            return sql.SQL("FALSE")
        return sql.SQL("coalesce(CASE {} END < {}, FALSE)").format(sql.SQL(" ").join(cases), self.decision())

    def allowed(self) -> sql.Composable:
        """Over the column of the decision."""
        places = [place for place, rule in enumerate(self.counting) if rule.action.type == "allow"]
        if self.rules.default_action == "allow":
            places.append(len(self.counting))
        return sql.SQL("({} = ANY ({}::int[]))").format(self.name("_decision"), sql.Literal(places))

    def restricted(self) -> sql.Composable:
        return sql.SQL("({} AND {} < {})").format(
            self.name("_allowed"),
            self.name("_restriction"),
            sql.SQL("least({}, {})").format(self.name("_decision"), sql.Literal(len(self.counting))),
        )


CHANGED: dict[str, sql.Composable] = {
    "newly_rejected": sql.SQL("(a_allowed AND NOT b_allowed)"),
    "newly_allowed": sql.SQL("(b_allowed AND NOT a_allowed)"),
    "newly_restricted": sql.SQL("(b_restricted AND NOT a_restricted)"),
    "no_longer_restricted": sql.SQL("(a_restricted AND b_allowed AND NOT b_restricted)"),
}


# Of the rejected: what a week counts.
FACTS: dict[str, sql.SQL] = {
    "rejected": sql.SQL("TRUE"),
    "verified": sql.SQL("verified"),
    "active": sql.SQL("active"),
    "paying": sql.SQL("paid"),
    "false_positives": sql.SQL("(verified OR active OR paid)"),
}


def judged_users(sets: Sequence[RuleColumns], scope: Scope) -> sql.Composable:
    """The users with each rule's answer, and what comes of it. The fences keep anything from being computed twice."""
    if sum(len(one.counting) for one in sets) > _MOST_COLUMNS:
        for one in sets:
            one.packed = True
    conditions = [column for one in sets for column in one.conditions()]
    answers = sql.SQL("SELECT f.*{} FROM ({}) AS f OFFSET 0").format(_extra_columns(conditions), _selected_users(scope))
    decided = [
        sql.SQL("{} AS {}").format(expression, one.name(name))
        for one in sets
        for name, expression in (("_decision", one.decision()), ("_restriction", one.restriction()))
    ]
    whole = sql.SQL(" OR ").join([one.is_undecided() for one in sets])
    decisions = sql.SQL("SELECT p.*, ({}) AS open{} FROM ({}) AS p OFFSET 0").format(
        whole, _extra_columns(decided), answers
    )
    allowed = [sql.SQL("{} AS {}").format(one.allowed(), one.name("_allowed")) for one in sets]
    outcomes = sql.SQL("SELECT q.*{} FROM ({}) AS q").format(_extra_columns(allowed), decisions)
    restricted = [sql.SQL("{} AS {}").format(one.restricted(), one.name("_restricted")) for one in sets]
    return _statement("with_facts").format(
        outcomes=sql.SQL("SELECT r.*{} FROM ({}) AS r").format(_extra_columns(restricted), outcomes)
    )


def _extra_columns(columns: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL("").join([sql.SQL(", {}").format(column) for column in columns])


def _selected_users(scope: Scope) -> sql.Composable:
    sample = (
        _statement("sample_limit").format(number=sql.Literal(scope.sample)) if scope.sample is not None else sql.SQL("")
    )
    since = scope.since.replace(tzinfo=None).isoformat() if scope.since else None
    selected = _statement("selected_users").format(
        since=sql.Literal(since), tenancy=sql.Literal(scope.tenancy), sample=sample
    )
    method = sql.SQL("CASE WHEN o.provider IS NOT NULL THEN 'oauth' ELSE {}::text END").format(
        sql.Literal(scope.auth_method)
    )
    provider = sql.SQL("coalesce(o.provider, {}::text)").format(sql.Literal("" if scope.auth_method else None))
    return _statement("judged_users").format(
        method=method, provider=provider, selected_users=selected, sign_up_providers=_statement("sign_up_providers"),
        payers=_statement("payers"),
    )  # fmt: skip


def _statement(name: str) -> sql.SQL:
    return sql.SQL(cast("LiteralString", _SQL[name]))
