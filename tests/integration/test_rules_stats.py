"""Recorded triggers: what recording may not do to the application, and what is counted in the end."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest
from psycopg import IsolationLevel, sql
from psycopg.types.json import Jsonb

from stackctl.backend.users import find_user
from stackctl.core.errors import UsageError
from stackctl.postgres.statements import load_statements
from stackctl.rules.stored import stats
from stackctl.rules.stored.stats import RuleStats, read_stats
from tests.backend import MINE, OTHER, add_user, fetch, one

if TYPE_CHECKING:
    from tests.conftest import Connect

Connection = psycopg.Connection[Any]

PAGE = Path(__file__).parents[2] / "docs" / "rules-stats.md"


def record(
    conn: Connection, rule: str, action: str = "log", user: uuid.UUID | None = None, tenancy: uuid.UUID = MINE
) -> None:
    conn.execute("SELECT stackctl.record_sign_up_rule_trigger(%s, %s, %s, %s)", (tenancy, rule, action, user))


def only(conn: Connection, rule: str) -> RuleStats:
    (found,) = (one for one in read_stats(conn, 48).rules if one.rule_id == rule)
    return found


def total(conn: Connection, rule: str) -> int:
    return sum(only(conn, rule).total.values())


@pytest.fixture
def others(connect: Connect, migrated_db: str) -> list[Connection]:
    """Three of the application's connections, each to be in a transaction of its own, none of which may ever wait."""
    found = [connect(migrated_db) for _ in range(3)]
    for conn in found:
        conn.execute("SET lock_timeout = '1ms'")
        conn.commit()
    return found


# -- recording


@pytest.mark.quick
def test_nobody_waits_for_another_transaction_and_nothing_is_lost(source: Connection, others: list[Connection]) -> None:
    for rules in (("a", "b"), ("b", "a"), ("a", "a")):  # in turn, which would deadlock on rows
        for conn, rule in zip(others, (*rules, "a"), strict=True):
            record(conn, rule)
        for conn, rule in zip(others, (*reversed(rules), "a"), strict=True):
            record(conn, rule)
    record(source, "a")
    others[2].rollback()
    assert total(source, "a") == 1
    for conn in others[:2]:
        conn.commit()
    assert (total(source, "a"), total(source, "b")) == (1 + 4 + 4, 4)
    assert sum(only(source, "a").hourly) == total(source, "a")
    # With nobody else at it there is one row for each rule and action: slots are taken from the first on.
    for _ in range(20):
        record(source, "c")
    assert one(source, "SELECT count(*) FROM stackctl.sign_up_rule_total WHERE rule_id = 'c'") == 1
    assert one(source, "SELECT max(slot) FROM stackctl.sign_up_rule_total") <= len(others)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_older_snapshots_count_too(source: Connection, others: list[Connection], level: IsolationLevel) -> None:
    record(source, "a")
    for conn in others:
        conn.isolation_level = level
        assert fetch(conn, "SELECT 1")  # the snapshot is taken here
    for conn in others:
        record(source, "a")  # changes the row that the snapshot shows, and lets go of its slot
        record(conn, "a")
        record(conn, "a")
        conn.commit()
    assert total(source, "a") == 1 + 3 + 6


def test_a_transaction_that_can_not_be_saved_ends_with_its_error(source: Connection, others: list[Connection]) -> None:
    source.execute("CREATE TABLE box (n int); INSERT INTO box VALUES (1), (2)")
    one_, two, _ = others
    for conn in (one_, two):
        conn.isolation_level = IsolationLevel.SERIALIZABLE
        fetch(conn, "SELECT sum(n) FROM box")
    for conn in (one_, two):
        conn.execute("INSERT INTO box VALUES (3)")
    one_.commit()
    with pytest.raises(psycopg.errors.SerializationFailure):
        record(two, "a")
        two.commit()


@pytest.mark.parametrize("action", ["block", "", "REJECT", None])
def test_an_action_that_there_is_not_is_refused(source: Connection, action: Any) -> None:
    with pytest.raises(psycopg.errors.IntegrityError):
        record(source, "a", action)
    assert read_stats(source, 48).rules == ()


def test_it_takes_the_right_to_call_and_no_other(source: Connection) -> None:
    role = sql.Identifier(f"app_{uuid.uuid4().hex}")
    with source.transaction(force_rollback=True):
        source.execute(sql.SQL("CREATE ROLE {0}; GRANT USAGE ON SCHEMA stackctl TO {0}").format(role))
        source.execute(sql.SQL("SET LOCAL ROLE {}").format(role))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), source.transaction():
            record(source, "a")
        source.execute("RESET ROLE")
        grant = re.search(r"GRANT EXECUTE ON FUNCTION [\w.]+ TO ", PAGE.read_text(encoding="utf-8"))
        assert grant
        source.execute(sql.SQL(cast("LiteralString", grant[0] + "{}")).format(role))
        source.execute(sql.SQL("SET LOCAL ROLE {}; SET LOCAL search_path = pg_temp").format(role))
        record(source, "a", "restrict", uuid.uuid4())
        source.execute("RESET ROLE; SET LOCAL search_path = public")
        assert total(source, "a") == 1


def test_a_user_is_recorded_once_for_a_rule_and_action(source: Connection) -> None:
    user = add_user(source)
    for rule, action in (("a", "restrict"), ("a", "restrict"), ("a", "log"), ("b", "log")):
        record(source, rule, action, user)
    assert total(source, "a") == 3
    found = {(trigger.rule_id, trigger.action) for trigger in find_user(source, str(user)).triggers}
    assert found == {("a", "restrict"), ("a", "log"), ("b", "log")}


def test_the_page_shows_what_works(source: Connection) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        source.execute(cast("LiteralString", block))
    user = add_user(source)
    data = {"projectId": "p", "branchId": "main", "ruleId": "from-afar", "action": "restrict", "userId": str(user)}
    for types, more in (
        (["$sign-up-rule-trigger"], {}),
        (["$sign-up-rule-trigger"], {"userId": None}),
        (["$token-refresh"], {}),
        (["$sign-up-rule-trigger"], {"branchId": "nowhere"}),
        (["$sign-up-rule-trigger"], {"action": "unheard-of"}),
    ):
        source.execute(
            'INSERT INTO "Event" (id, "updatedAt", "isWide", "eventStartedAt", "eventEndedAt", "systemEventTypeIds",'
            " data) VALUES (gen_random_uuid(), now(), false, now(), now(), %s, %s)",
            (types, Jsonb(data | more)),
        )
    assert one(source, 'SELECT count(*) FROM "Event"') == 5
    assert (only(source, "from-afar").tenancy, only(source, "from-afar").total) == (MINE, {"restrict": 2})
    assert [trigger.rule_id for trigger in find_user(source, str(user)).triggers] == ["from-afar"]


# -- reading


def put(conn: Connection, rule: str, action: str, hours_ago: int, triggers: int, slot: int = 0) -> None:
    """As recorded that long ago, in a slot."""
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours_ago)
    key = {"tenancy_id": MINE, "rule_id": rule, "action": action, "slot": slot, "triggers": triggers}
    for table, times in (("sign_up_rule_hour", {"hour": at}), ("sign_up_rule_total", {"first_at": at, "last_at": at})):
        values = key | times
        conn.execute(
            sql.SQL("INSERT INTO stackctl.{} ({}) VALUES ({}) ON CONFLICT (tenancy_id, rule_id, action, {} slot)"
                    " DO UPDATE SET triggers = {}.triggers + EXCLUDED.triggers").format(
                sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(map(sql.Placeholder, values)),
                sql.SQL("hour," if "hour" in times else ""), sql.Identifier(table)),
            values,
        )  # fmt: skip


def test_hours_actions_slots_and_all_time(source: Connection) -> None:
    for hours_ago, triggers, slot in ((0, 2, 0), (0, 3, 1), (3, 7, 0), (4, 100, 0), (9000, 1000, 5)):
        put(source, "a", "reject", hours_ago, triggers, slot)
    put(source, "a", "log", 3, 20)
    put(source, "b", "log", 4, 1)
    found = read_stats(source, 4)
    assert found.until - found.since == timedelta(hours=4)
    assert found.since <= datetime.now(UTC) - timedelta(hours=3) < found.since + timedelta(hours=1)
    a, b = found.rules
    assert (a.rule_id, a.tenancy, a.hourly) == ("a", MINE, (27, 0, 0, 5))
    assert a.recent == {"log": 20, "reject": 12}
    assert a.total == {"log": 20, "reject": 1112}
    assert a.last_at - a.first_at == timedelta(hours=9000)
    assert (b.hourly, b.recent, b.total) == ((0, 0, 0, 0), {}, {"log": 1})
    assert read_stats(source, 5).rules[1].hourly == (1, 0, 0, 0, 0)
    # All time survives the hours that were cleared away.
    source.execute("DELETE FROM stackctl.sign_up_rule_hour")
    assert (read_stats(source, 48).rules[0].total, sum(read_stats(source, 48).rules[0].hourly)) == (a.total, 0)


def test_one_tenancy_or_all(source: Connection) -> None:
    record(source, "a", "log", tenancy=OTHER)
    record(source, "z", "log")
    gone = uuid.UUID(int=77)
    record(source, "a", "log", tenancy=gone)
    assert [(rule.tenancy, rule.rule_id) for rule in read_stats(source, 1).rules] == [
        (MINE, "z"),
        (OTHER, "a"),
        (gone, "a"),
    ]
    assert [rule.rule_id for rule in read_stats(source, 1, MINE).rules] == ["z"]
    assert [rule.rule_id for rule in read_stats(source, 1, gone).rules] == ["a"]
    with pytest.raises(UsageError) as caught:
        read_stats(source, 1, uuid.UUID(int=78))
    assert caught.value.code == "unknown-tenancy"


def test_the_hours_of_a_rule_are_a_range_of_the_index_however_many_there_are(source: Connection) -> None:
    source.execute(
        "INSERT INTO stackctl.sign_up_rule_hour SELECT %s, 'r' || r, 'log', date_trunc('hour', now(), 'UTC')"
        " - make_interval(hours => h), 0, 1000 FROM generate_series(1, 10) AS r, generate_series(0, 4999) AS h",
        (MINE,),
    )
    source.execute(
        "INSERT INTO stackctl.sign_up_rule_total SELECT tenancy_id, rule_id, action, slot, sum(triggers), min(hour),"
        " max(hour) FROM stackctl.sign_up_rule_hour GROUP BY tenancy_id, rule_id, action, slot"
    )
    source.execute("ANALYZE stackctl.sign_up_rule_hour; ANALYZE stackctl.sign_up_rule_total")
    for tenancy in (None, MINE):
        values = {"tenancy": tenancy, "hours": 48, "until": read_stats(source, 1).until - timedelta(hours=1)}
        query = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_statements(stats.__file__)["count_triggers"]
        ((((plan,),),)) = source.execute(query, values).fetchall()
        scans = [node for node in nodes(plan["Plan"]) if node.get("Relation Name") == "sign_up_rule_hour"]
        assert [node["Actual Rows"] for node in scans] == [48]
        assert all(node["Node Type"] != "Seq Scan" for node in scans)
    assert [sum(rule.hourly) for rule in read_stats(source, 48).rules] == [48_000] * 10


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(inner for child in plan.get("Plans", ()) for inner in nodes(child))]
