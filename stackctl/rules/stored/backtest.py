"""What rules would have done to the users that are already in the database.

One pass in SQL counts all whom SQL can judge. A second one, where it is needed, fetches those for whom any rule that
counts is undecided, who are judged by the evaluator, and those who are to be named. Both see one snapshot, and write
nothing.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter, defaultdict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import IsolationLevel, sql

from stackctl.core.progress import Progress
from stackctl.rules.decide import Decision, Judge
from stackctl.rules.model import AUTH_METHODS, Context
from stackctl.rules.stored.backtest_query import CHANGED, FACTS, RuleColumns, Scope, judged_users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from uuid import UUID

    from stackctl.postgres.connect import Connection
    from stackctl.rules.model import RuleSet

EXAMPLES = 10  # users named for each difference
_PAGE = 5_000  # rows fetched at a time
_KEPT = 1_000  # examples, before those who would not be shown are left out
_SHOWN = 200  # users for each step of progress
_TICK = 1.0  # seconds between signs of life while PostgreSQL is at work

CHANGES = tuple(CHANGED)


@dataclass(frozen=True)
class Example:
    change: str
    tenancy: UUID
    user: UUID
    email: str


@dataclass(frozen=True, slots=True)
class Affected:
    """A user who would be rejected or restricted, and what came of them; times in UTC.

    `decision`: "reject", "default-reject" or "restrict"; `rule`: the one that does it, None for the default.
    `active`: seen a day after the sign-up or later.
    """

    tenancy: UUID
    user: UUID
    email: str
    decision: str
    rule: str | None
    signed_up_at: datetime
    verified: bool
    active: bool
    last_active_at: datetime
    paid: bool


@dataclass
class Report:
    """Counts of users. `by_rule`: of (rule id, "matched" | "decided" | "restricted" | "error" | "unknown").

    `outcomes` has the four of a decision, `restricted` (let in so) and `unknown`: of whom it depends on how they signed
    up, which the database does not tell. `changes` and `examples`: against the other rules.
    `weeks`: by the Monday of the sign-up's week: "users", "rejected", "restricted", and of the rejected those who are
    "verified", "active", "paying", and "false_positives": any of these. `affected`: only if asked for.
    """

    users: int = 0
    unknown_method: int = 0
    in_python: int = 0
    by_rule: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    weeks: defaultdict[date, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    affected: list[Affected] = field(default_factory=list)

    def all_weeks(self) -> Counter[str]:
        return sum(self.weeks.values(), Counter())


def backtest(
    conn: Connection,
    rules: RuleSet,
    scope: Scope,
    against: RuleSet | None = None,
    progress: Callable[[str, int | None], AbstractContextManager[Progress]] = lambda *_: nullcontext(Progress()),
    *,
    list_affected: bool = False,
) -> Report:
    """Judge the users by `rules`; with `against`, also count whom those rules would treat otherwise.

    `progress` shows that of one part: its label, and how many users it has, if known. One read-only transaction.
    """
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    conn.read_only = True
    report = Report()
    sets = [RuleColumns("a", rules)] + ([RuleColumns("b", against)] if against else [])
    relation = judged_users(sets, scope)
    with conn.transaction():
        # Tables that were just filled have no statistics: with rows taken for few, a join would go through one table
        # for each row of the other, or merge them by tenancy alone. Hash joins are left.
        conn.execute("SET LOCAL enable_nestloop = off")
        conn.execute("SET LOCAL enable_mergejoin = off")
        conn.execute("SET LOCAL cursor_tuple_fraction = 1")  # all rows are fetched: the first need not come soon
        conn.execute("SET LOCAL jit = off")  # each rule is several expressions, and their compilation is not worth it
        with progress("judging users", None) as shown, _ticking(shown):
            left = _judge_in_sql(conn, relation, sets, report)
        named = list_affected or any(report.changes.values())
        if left or named:
            with progress("judging one by one", None if named else left) as shown, _ticking(shown):
                _judge_rows(conn, relation, sets, report, shown, list_affected=list_affected)
    report.affected.sort(key=lambda one: (one.signed_up_at, one.tenancy, one.user))
    report.examples = [one for change in CHANGES for one in _first_examples(report.examples, change)]
    return report


@contextmanager
def _ticking(progress: Progress) -> Iterator[None]:
    """Let progress speak while the server says nothing."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(_TICK):
            progress.advance(0)

    thread = threading.Thread(target=tick, name="stackctl-tick", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _judge_in_sql(conn: Connection, relation: sql.Composable, sets: Sequence[RuleColumns], report: Report) -> int:
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
    counted += [(change, CHANGED[change]) for change in CHANGES if len(sets) > 1]
    counted += [(fact, sql.SQL("NOT a_allowed AND {}").format(so)) for fact, so in FACTS.items()]
    columns = [sql.SQL("count(*) FILTER (WHERE NOT open AND {})").format(where) for _, where in counted]
    # One array: PostgreSQL takes no more than 1,664 columns.
    query = sql.SQL(
        "SELECT week, count(*), count(*) FILTER (WHERE open), count(*) FILTER (WHERE auth_method IS NULL), ARRAY[{}] "
        "FROM {} GROUP BY week"
    )
    kinds = {rule.id: rule.action.type for rule in first.counting}
    left = 0
    for week, users, undecided, unknown_method, numbers in conn.execute(
        query.format(sql.SQL(", ").join(columns), relation)
    ):
        report.users += users
        report.unknown_method += unknown_method
        left += undecided
        of_week = report.weeks[date.fromordinal(1 + 7 * week)]
        of_week["users"] += users
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
                    of_week["restricted"] += number
                case fact if fact in FACTS:
                    of_week[fact] += number
                case change:
                    report.changes[change] += number
    return left


def _judge_rows(
    conn: Connection,
    relation: sql.Composable,
    sets: Sequence[RuleColumns],
    report: Report,
    progress: Progress,
    *,
    list_affected: bool,
) -> None:
    """One more pass, over those whom SQL leaves open, and those who are to be named."""
    wanted = [sql.SQL("open")]
    wanted += [sql.SQL("a_restricted OR NOT a_allowed")] if list_affected else []
    changes = sql.SQL(", ").join(CHANGED[change] if len(sets) > 1 else sql.SQL("FALSE") for change in CHANGES)
    wanted += [sql.SQL("TRUE = ANY (ARRAY[{}])").format(changes)] if len(sets) > 1 else []
    query = sql.SQL(
        "SELECT open, ARRAY[{}], a_allowed, a_restricted, "
        "CASE WHEN a_allowed THEN a_restriction ELSE a_decision END, "
        "id, tenancy, address, country_code, auth_method, oauth_provider, bot, free_trial_abuse, "
        "signed_up_at, verified, active, last_active_at, paid FROM {} WHERE {}"
    ).format(changes, relation, sql.SQL(" OR ").join(wanted))
    judges = [Judge(one.rules) for one in sets]
    ids = [rule.id for rule in sets[0].counting]
    for number, (is_open, changed, allowed, restricted, place, *row) in enumerate(_stream(conn, query), 1):
        if number % _SHOWN == 0:
            progress.advance(_SHOWN)
        if is_open:
            _judge_in_python(report, row, judges, list_affected)
            report.in_python += 1
            continue
        id_, tenancy, address, *_ = row
        for change in (change for change, so in zip(CHANGES, changed, strict=True) if so):
            _add_example(report, Example(change, tenancy, id_, address or ""))
        if list_affected and (restricted or not allowed):
            decision = "restrict" if allowed else "reject" if place < len(ids) else "default-reject"
            rule = ids[place] if place < len(ids) else None
            report.affected.append(_affected(tenancy, id_, address, decision, rule, row[8:]))


def _add_example(report: Report, one: Example) -> None:
    """Of very many, those who would be shown are kept now and then."""
    report.examples.append(one)
    if len(report.examples) > _KEPT:
        report.examples = [one for change in CHANGES for one in _first_examples(report.examples, change)]


def _first_examples(examples: Sequence[Example], change: str) -> list[Example]:
    own = (one for one in examples if one.change == change)
    return heapq.nsmallest(EXAMPLES, own, key=lambda one: (one.user, one.tenancy))


def _affected(
    tenancy: UUID, user: UUID, address: str | None, decision: str, rule: str | None, facts: Sequence[Any]
) -> Affected:
    signed_up_at, verified, active, last_active_at, paid = facts
    return Affected(
        tenancy, user, address or "", decision, rule,
        signed_up_at.replace(tzinfo=UTC), verified, active, last_active_at.replace(tzinfo=UTC), paid,
    )  # fmt: skip


def _stream(conn: Connection, query: sql.Composed) -> Iterator[Any]:
    with conn.cursor("backtest") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(query)
        yield from cursor


def _judge_in_python(report: Report, row: Any, judges: Sequence[Judge], list_affected: bool) -> None:
    """One user by the evaluator. Of whom it is not known how they signed up, in each way that they may have."""
    id_, tenancy, address, country, method, provider, bot, abuse, *facts = row
    ways = [(method, provider or "")] if method else [(one, "") for one in AUTH_METHODS]
    users = [Context((address or "").strip().lower(), country, way, by, bot, abuse) for way, by in ways]
    decisions = [[judge.decide(user) for user in users] for judge in judges]
    decided = _tally(report, decisions[0])
    if decided is not None and (not decided.should_allow or decided.restricted_by):
        rule = decided.restricted_by if decided.should_allow else decided.decided_by
        one = _affected(
            tenancy, id_, address, "restrict" if decided.should_allow else decided.outcome, rule, facts
        )  # fmt: skip
        _count_week(report, one)
        if list_affected:
            report.affected.append(one)
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
            _add_example(report, Example(change, tenancy, id_, address or ""))


def _count_week(report: Report, one: Affected) -> None:
    signed_up = one.signed_up_at.date()
    of_week = report.weeks[signed_up - timedelta(days=signed_up.weekday())]
    if one.decision == "restrict":
        of_week["restricted"] += 1
        return
    facts = {"verified": one.verified, "active": one.active, "paying": one.paid}
    of_week.update(["rejected", *(fact for fact, so in facts.items() if so)])
    of_week["false_positives"] += any(facts.values())


def _tally(report: Report, decisions: Sequence[Decision]) -> Decision | None:
    """Count what is the same in each way of the sign-up; the decision if that is."""
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
        return None
    outcome, decided_by, restricted_by = results.pop()
    report.outcomes[outcome] += 1
    if decided_by:
        report.by_rule[decided_by, "decided"] += 1
    if restricted_by:
        report.outcomes["restricted"] += 1
        report.by_rule[restricted_by, "restricted"] += 1
    return decisions[0]
