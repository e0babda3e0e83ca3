"""What rules would have done to the users that are already in the database.

One pass in SQL judges all whom SQL can judge; those for whom any rule that counts is undecided are fetched, and judged
by the evaluator. Both parts see one snapshot, and write nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString, cast

from psycopg import IsolationLevel, sql

from stackctl.postgres.statements import load_statements
from stackctl.rules.cel.to_sql import to_predicate
from stackctl.rules.decide import Decision, Judge
from stackctl.rules.model import AUTH_METHODS, Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from stackctl.postgres.connect import Connection
    from stackctl.rules.model import Rule, RuleSet

EXAMPLES = 10  # users named for each difference
_PAGE = 5_000  # rows fetched at a time

_SQL = load_statements(__file__)
CHANGES = ("newly_rejected", "newly_allowed", "newly_restricted", "no_longer_restricted")


@dataclass(frozen=True)
class Scope:
    """Which users. `since`: UTC; `sample`: at most so many; `auth_method`: of those of whom it is not known."""

    since: datetime | None = None
    tenancy: UUID | None = None
    sample: int | None = None
    auth_method: str | None = None


@dataclass(frozen=True)
class Example:
    change: str
    tenancy: UUID
    user: UUID
    email: str


@dataclass
class Report:
    """Counts of users. `by_rule`: of (rule id, "matched" | "decided" | "restricted" | "error" | "unknown").

    `outcomes` has the four of a decision, `restricted` (let in so) and `unknown`: of whom it depends on how they signed
    up, which the database does not tell. `changes` and `examples`: against the other rules.
    """

    users: int = 0
    unknown_method: int = 0
    in_python: int = 0
    by_rule: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)


def backtest(
    conn: Connection,
    rules: RuleSet,
    scope: Scope,
    against: RuleSet | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Judge the users by `rules`; with `against`, also count whom those rules would treat otherwise.

    `progress` is told how many users have been judged in Python. One read-only transaction.
    """
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    conn.read_only = True
    report = Report()
    sets = [_RuleColumns("a", rules)] + ([_RuleColumns("b", against)] if against else [])
    relation = _judged_users(sets, scope)
    with conn.transaction():
        # Tables that were just filled have no statistics: with rows taken for few, a join would go through one table
        # for each row of the other.
        conn.execute("SET LOCAL enable_nestloop = off")
        conn.execute("SET LOCAL jit = off")  # each rule is several expressions, and their compilation is not worth it
        if _judge_in_sql(conn, relation, sets, report):
            judges = [Judge(one.rules) for one in sets]
            for row in _fetch_users(conn, relation, sql.SQL("open")):
                _judge_in_python(report, row, judges)
                report.in_python += 1
                if report.in_python % _PAGE == 0:
                    progress(report.in_python)
        for change in CHANGES if against else ():
            left = EXAMPLES - sum(one.change == change for one in report.examples)
            for row in _fetch_users(conn, relation, sql.SQL("NOT open AND {}").format(_CHANGED[change]), left):
                report.examples.append(Example(change, row[1], row[0], row[2] or ""))
    return report


class _RuleColumns:
    """One rule set's columns in the query: the conditions of rules that count, the decision, the restriction."""

    def __init__(self, prefix: str, rules: RuleSet) -> None:
        self.rules = rules
        self.prefix = prefix
        self.counting = [rule for rule in rules.ordered if rule.enabled and (rule.condition or "").strip()]

    def name(self, what: int | str) -> sql.Identifier:
        return sql.Identifier(f"{self.prefix}{what}")

    def conditions(self) -> list[sql.Composable]:
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


_CHANGED: dict[str, sql.Composable] = {
    "newly_rejected": sql.SQL("(a_allowed AND NOT b_allowed)"),
    "newly_allowed": sql.SQL("(b_allowed AND NOT a_allowed)"),
    "newly_restricted": sql.SQL("(b_restricted AND NOT a_restricted)"),
    "no_longer_restricted": sql.SQL("(a_restricted AND b_allowed AND NOT b_restricted)"),
}


def _judged_users(sets: Sequence[_RuleColumns], scope: Scope) -> sql.Composable:
    """The users with each rule's answer, and what comes of it. The fences keep anything from being computed twice."""
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
    return sql.SQL("(SELECT r.*{} FROM ({}) AS r) AS s").format(_extra_columns(restricted), outcomes)


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
        method=method, provider=provider, selected_users=selected, sign_up_providers=_statement("sign_up_providers")
    )


def _statement(name: str) -> sql.SQL:
    return sql.SQL(cast("LiteralString", _SQL[name]))


def _judge_in_sql(conn: Connection, relation: sql.Composable, sets: Sequence[_RuleColumns], report: Report) -> int:
    """Fill in what SQL decides; the number of users that are left."""
    first = sets[0]
    counted: list[tuple[Any, sql.Composable]] = []
    for place, rule in enumerate(first.counting):
        own, decision = first.name(place), first.name("_decision")
        reached = sql.SQL("{} AND {} >= {}").format(own, decision, sql.Literal(place))
        counted.append(((rule.id, "matched"), reached))
        if rule.action.type in ("allow", "reject"):
            counted.append(((rule.id, "decided"), sql.SQL("{} = {}").format(decision, sql.Literal(place))))
        if rule.action.type == "restrict":
            by = sql.SQL("a_restricted AND {} = {}").format(first.name("_restriction"), sql.Literal(place))
            counted.append(((rule.id, "restricted"), by))
    counted.append(("default", sql.SQL("a_decision = {}").format(sql.Literal(len(first.counting)))))
    counted.append(("restricted", sql.SQL("a_restricted")))
    counted += [(change, _CHANGED[change]) for change in CHANGES if len(sets) > 1]
    columns = [sql.SQL("count(*) FILTER (WHERE NOT open AND {})").format(where) for _, where in counted]
    # One array: PostgreSQL takes no more than 1,664 columns.
    query = sql.SQL(
        "SELECT count(*), count(*) FILTER (WHERE open), count(*) FILTER (WHERE auth_method IS NULL), ARRAY[{}] FROM {}"
    )
    row = conn.execute(query.format(sql.SQL(", ").join(columns), relation)).fetchone()
    assert row is not None
    report.users, left, report.unknown_method, numbers = row
    kinds = {rule.id: rule.action.type for rule in first.counting}
    for (what, _), number in zip(counted, numbers, strict=True):
        match what:
            case (id_, kind):
                report.by_rule[id_, kind] += number
                if kind == "decided":
                    report.outcomes[kinds[id_]] += number
            case "default":
                report.outcomes[f"default-{first.rules.default_action}"] += number
            case "restricted":
                report.outcomes["restricted"] += number
            case change:
                report.changes[change] += number
    return left


def _fetch_users(
    conn: Connection, relation: sql.Composable, where: sql.Composable, most: int | None = None
) -> Iterator[Any]:
    limit = sql.SQL("") if most is None else sql.SQL(" LIMIT {}").format(sql.Literal(most))
    order = sql.SQL("") if most is None else sql.SQL(" ORDER BY id")
    query = sql.SQL(
        "SELECT id, tenancy, address, country_code, auth_method, oauth_provider, bot, free_trial_abuse "
        "FROM {} WHERE {}{}{}"
    ).format(relation, where, order, limit)
    with conn.cursor("backtest") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(query)
        yield from cursor


def _judge_in_python(report: Report, row: Any, judges: Sequence[Judge]) -> None:
    """One user by the evaluator. Of whom it is not known how they signed up, in each way that they may have."""
    id_, tenancy, address, country, method, provider, bot, abuse = row
    ways = [(method, provider or "")] if method else [(one, "") for one in AUTH_METHODS]
    users = [Context((address or "").strip().lower(), country, way, by, bot, abuse) for way, by in ways]
    decisions = [[judge.decide(user) for user in users] for judge in judges]
    _tally(report, decisions[0])
    outcomes = [{(one.should_allow, one.should_allow and one.restricted_by is not None) for one in by}
                for by in decisions]  # fmt: skip
    if len(judges) > 1 and all(len(one) == 1 for one in outcomes):
        (before, restricted_before), (after, restricted_after) = (next(iter(one)) for one in outcomes)
        found = {
            "newly_rejected": before and not after,
            "newly_allowed": after and not before,
            "newly_restricted": restricted_after and not restricted_before,
            "no_longer_restricted": restricted_before and after and not restricted_after,
        }
        for change in (name for name, so in found.items() if so):
            report.changes[change] += 1
            if sum(one.change == change for one in report.examples) < EXAMPLES:
                report.examples.append(Example(change, tenancy, id_, address or ""))


def _tally(report: Report, decisions: Sequence[Decision]) -> None:
    statuses = [{one.rule.id: one.status for one in decision.evaluations} for decision in decisions]
    for id_ in dict.fromkeys(id_ for one in statuses for id_ in one):
        found = {one.get(id_) for one in statuses}
        if len(found) > 1:
            report.by_rule[id_, "unknown"] += 1
        elif (status := found.pop()) in ("matched", "error"):
            report.by_rule[id_, status] += 1
    results = {(one.outcome, one.decided_by, one.restricted_by if one.should_allow else None) for one in decisions}
    if len(results) > 1:
        report.outcomes["unknown"] += 1
        return
    outcome, decided_by, restricted_by = results.pop()
    report.outcomes[outcome] += 1
    if decided_by:
        report.by_rule[decided_by, "decided"] += 1
    if restricted_by:
        report.outcomes["restricted"] += 1
        report.by_rule[restricted_by, "restricted"] += 1
