"""A backtest counts what the evaluator would say of each user in the database."""

from __future__ import annotations

import csv
import random
import uuid
from collections import Counter
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.backend.users import find_user
from stackctl.core.progress import Progress
from stackctl.rules.cel.values import NamedList
from stackctl.rules.decide import Decision, Judge
from stackctl.rules.model import Action, Context, Rule, RuleSet
from stackctl.rules.stored.backtest import CHANGES, Report, Scope, backtest
from stackctl.rules.stored.user import list_contexts
from tests.backend import MINE, OTHER, Project, add_channel, add_user, insert
from tests.rule_generator import Generator

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.conftest import Connect

Connection = psycopg.Connection[Any]

EMAILS = [
    None,
    "bob@gmail.com",
    " Bob+1@A.com ",
    "É@x.io",
    "a",
    "x@y@gmail.com",
    'quo"te\\@b.c',
    "KELVIN\u212a@x.io",
    "\x1fa@b",
]


def fill(conn: Connection, number: int, chance: random.Random) -> list[Context]:
    """Users of every kind, and what a condition sees of each; all signed up by password or OAuth."""
    found: list[Context] = []
    for _ in range(number):
        email, country = chance.choice(EMAILS), chance.choice([None, "DE", "us"])
        bot, abuse = chance.choice([0, 1, 80, 81, 100]), chance.choice([0, 7, 100])
        user = add_user(
            conn, signUpCountryCode=country, signUpRiskScoreBot=bot, signUpRiskScoreFreeTrialAbuse=abuse,
        )  # fmt: skip
        if email is not None:
            add_channel(conn, user, email)
        provider = chance.choice(["", "", "github", "google"])
        if provider:
            link(conn, user, provider)
        found.append(
            Context.from_user(email=email, country_code=country, auth_method="oauth" if provider else "password",
                       oauth_provider=provider, risk_scores={"bot": bot, "free_trial_abuse": abuse})
        )  # fmt: skip
    conn.commit()
    return found


def link(conn: Connection, user: uuid.UUID, provider: str, tenancy: uuid.UUID = MINE) -> None:
    insert(
        conn,
        "ProjectUserOAuthAccount",
        {"tenancyId": tenancy, "projectUserId": user, "id": uuid.uuid4(), "updatedAt": "now",
         "configOAuthProviderId": provider, "providerAccountId": str(uuid.uuid4())},
    )  # fmt: skip


def test_a_list_by_name_is_one_array(source: Connection, connect: Connect, migrated_db: str) -> None:
    users = fill(source, 40, random.Random(8))
    bad = NamedList("bad", dict.fromkeys(["a.com", 'quo"te\\@b.c', "gmail.com", *map(str, range(100_000))], 1))
    conditions = ["emailDomain in bad", "!(email in bad)", "countryCode in bad || emailDomain in bad", "size(bad) > 1"]
    for condition in conditions:
        rule = Rule("r", "", True, 0, condition, Action("reject"), lists={"bad": bad})
        rules = RuleSet("allow", (rule,))
        report = backtest(connect(migrated_db), rules, Scope(auth_method="password"))
        assert (+report.by_rule, +report.outcomes) == expected([Judge(rules).decide(user) for user in users])


def test_a_stored_user_is_seen_as_a_backtest_sees_it(
    source: Connection, connect: Connect, migrated_db: str, tmp_path: Path
) -> None:
    users = fill(source, 25, random.Random(9))
    ids = [row[0] for row in source.execute('SELECT "projectUserId" FROM "ProjectUser"')]
    found = [list_contexts(source, find_user(source, str(id_)), "password") for id_ in ids]
    assert Counter(one for each in found for one in each) == Counter(users)
    ada = add_user(source, signUpCountryCode="DE", signUpRiskScoreBot=7)
    add_channel(source, ada, "Ada@x.io")
    source.commit()
    project = Project(tmp_path)
    (tmp_path / "r.yaml").write_text("rules: {r: {condition: authMethod == 'otp', action: {type: reject}}}")
    step = ("rules", "eval", "--database-url", migrated_db, "--rules", "r.yaml", "--user", "ada@X.io")
    document = project.run(*step, "--json").json
    assert document["user"]["id"] == str(ada)
    assert document["context"] == Context("ada@x.io", "DE", bot=7).fields()
    assert {way: one["decision"] for way, one in document["by_auth_method"].items()} == {
        "password": "default-allow", "otp": "reject", "oauth": "default-allow", "passkey": "default-allow",
    }  # fmt: skip
    shown = project.run(*step)
    assert "otp: rejected by r" in shown.stdout
    assert "the decision depends on it" in shown.stderr
    document = project.run(*step, "--auth-method", "otp", "--json").json
    assert (document["outcome"]["decision"], document["by_auth_method"]) == ("reject", {})
    assert project.run(*step[:-1], "nobody@x.io").code == 2
    assert project.run(*step, "--email", "a@b.c").code == 2


def random_rules(generator: Generator, chance: random.Random) -> RuleSet:
    rules = [
        Rule(f"r{place}", "", chance.random() < 0.9, chance.randrange(5), generator.condition(2),
             Action(chance.choice(["allow", "reject", "restrict", "log"])))
        for place in range(6)
    ]  # fmt: skip
    return RuleSet(chance.choice(["allow", "reject"]), tuple(rules))


def expected(decisions: list[Decision]) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    by_rule: Counter[tuple[str, str]] = Counter()
    outcomes: Counter[str] = Counter()
    for decision in decisions:
        outcomes[decision.outcome] += 1
        by_rule.update((one.rule.id, one.status) for one in decision.evaluations if one.status in ("matched", "error"))
        if decision.decided_by:
            by_rule[decision.decided_by, "decided"] += 1
        if decision.should_allow and decision.restricted_by:
            outcomes["restricted"] += 1
            by_rule[decision.restricted_by, "restricted"] += 1
    return by_rule, outcomes


def treated(decision: Decision) -> tuple[bool, bool]:
    return decision.should_allow, decision.should_allow and decision.restricted_by is not None


def test_every_count_is_the_evaluators(source: Connection, connect: Connect, migrated_db: str) -> None:
    chance, generator = random.Random(5), Generator(5)
    users = fill(source, 150, chance)
    in_sql = 0
    for _ in range(15):
        one, other = random_rules(generator, chance), random_rules(generator, chance)
        report = backtest(connect(migrated_db), one, Scope(auth_method="password"), other, list_affected=True)
        before, after = ([Judge(rules).decide(user) for user in users] for rules in (one, other))
        by_rule, outcomes = expected(before)
        assert +report.by_rule == by_rule, one
        assert +report.outcomes == outcomes, one
        affected = Counter((found.decision, found.rule) for found in report.affected)
        assert affected == Counter(
            ("restrict", found.restricted_by) if found.should_allow else (found.outcome, found.decided_by)
            for found in before
            if not found.should_allow or found.restricted_by
        ), one
        weeks = report.all_weeks()
        assert (weeks["users"], weeks["restricted"]) == (len(users), outcomes["restricted"])
        assert weeks["rejected"] == outcomes["reject"] + outcomes["default-reject"]
        changes: Counter[str] = Counter()
        for was, now in zip(map(treated, before), map(treated, after), strict=True):
            changes["newly_rejected"] += was[0] and not now[0]
            changes["newly_allowed"] += now[0] and not was[0]
            changes["newly_restricted"] += now[1] and not was[1]
            changes["no_longer_restricted"] += was[1] and now[0] and not now[1]
        assert +report.changes == +changes, (one, other)
        for change in CHANGES:
            examples = [example for example in report.examples if example.change == change]
            assert len(examples) == min(10, changes[change])
        in_sql += report.users - report.in_python
    assert in_sql > 150


def by_method(action: str = "reject") -> RuleSet:
    rule = Rule("by-method", "", True, 1, 'authMethod == "password"', Action(action))  # type: ignore[arg-type]
    return RuleSet("allow", (rule,))


def test_how_somebody_signed_up_is_unknown_unless_the_database_tells(
    source: Connection, connect: Connect, migrated_db: str
) -> None:
    plain, linked, both = (add_user(source) for _ in range(3))
    add_channel(source, both, "b@x.io", usedForAuth="TRUE")
    link(source, linked, "github")
    link(source, both, "github")
    add_user(source, isAnonymous=True)
    source.commit()
    report = backtest(connect(migrated_db), by_method(), Scope())
    assert (report.users, report.unknown_method) == (3, 2)
    assert +report.outcomes == Counter({"unknown": 2, "default-allow": 1})
    assert report.by_rule["by-method", "unknown"] == 2
    told = backtest(connect(migrated_db), by_method(), Scope(auth_method="password"))
    assert (told.unknown_method, +told.outcomes) == (0, Counter({"reject": 2, "default-allow": 1}))
    assert plain != linked


def test_the_scope_is_kept(source: Connection, connect: Connect, migrated_db: str) -> None:
    now = datetime.now(UTC)
    for days in range(10):
        add_user(source, signedUpAt=(now - timedelta(days=days, hours=1)).replace(tzinfo=None))
    add_user(source, OTHER)
    source.commit()

    def users(scope: Scope) -> int:
        return backtest(connect(migrated_db), RuleSet("allow", ()), scope).users

    assert users(Scope()) == 11
    assert users(Scope(tenancy=MINE)) == 10
    assert users(Scope(tenancy=MINE, since=now - timedelta(days=3))) == 3
    assert users(Scope(sample=4)) == 4


def test_tables_without_statistics_take_no_longer(source: Connection, connect: Connect, migrated_db: str) -> None:
    source.execute("SET session_replication_role = replica")
    for table in ("ProjectUser", "ContactChannel", "ProjectUserOAuthAccount"):
        source.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = false)").format(sql.Identifier(table)))
    source.execute(
        'INSERT INTO "ProjectUser" ("projectUserId", "updatedAt", "displayName", "tenancyId", "mirroredBranchId",'
        " \"mirroredProjectId\") SELECT gen_random_uuid(), now(), 'u', %s, 'main', 'p' FROM generate_series(1, 10000)",
        [MINE],
    )
    source.execute(
        'INSERT INTO "ContactChannel" ("tenancyId", "projectUserId", id, "updatedAt", type, "isPrimary", "isVerified",'
        " value) SELECT \"tenancyId\", \"projectUserId\", gen_random_uuid(), now(), 'EMAIL', 'TRUE', true, 'a@x.io'"
        ' FROM "ProjectUser"'
    )
    source.execute(
        'INSERT INTO "ProjectUserOAuthAccount" ("tenancyId", "projectUserId", id, "updatedAt", "configOAuthProviderId",'
        ' "providerAccountId") SELECT "tenancyId", "projectUserId", gen_random_uuid(), now(), \'github\', \'1\''
        ' FROM "ProjectUser"'
    )
    source.commit()
    conn = connect(migrated_db)
    conn.execute("SET statement_timeout = '2s'")  # it took three seconds, and grew with the square
    conn.commit()
    rule = Rule("oauth", "", True, 1, 'authMethod == "oauth"', Action("reject"))
    report = backtest(conn, RuleSet("allow", (rule,)), Scope(), list_affected=True)
    assert report.outcomes["reject"] == len(report.affected) == 10_000


def test_many_rules_are_counted_at_once(source: Connection, connect: Connect, migrated_db: str) -> None:
    """More than a row has columns for."""
    for score in range(3):
        add_user(source, signUpRiskScoreBot=score)
    add_channel(source, add_user(source, signUpRiskScoreBot=6), "\u00e9@x.io")
    source.commit()
    number = 1_650
    # The last but one matches everybody and rejects them; the others before it decide about nobody.
    rules = [
        Rule(f"r{n}", "", True, number - n, f"riskScores.bot >= {max(number - 2 - n, 0)}",
             Action("reject" if n % 20 == 8 else "log"))
        for n in range(number)
    ]  # fmt: skip
    rules[3] = Rule("unknown", "", True, number - 3, "email == 'a@b.c'", Action("log"))  # an address that is not ASCII
    users = [Context("", "", "password", bot=score) for score in range(3)] + [
        Context("\u00e9@x.io", "", "password", bot=6)
    ]
    one, other = RuleSet("allow", tuple(rules)), RuleSet("allow", ())
    report = backtest(connect(migrated_db), one, Scope(auth_method="password"), other, list_affected=True)
    by_rule, outcomes = expected([Judge(one).decide(user) for user in users])
    assert (+report.by_rule, +report.outcomes, report.in_python) == (by_rule, outcomes, 1)
    assert outcomes["reject"] == len(report.affected) == report.changes["newly_allowed"] == 4


def test_who_was_rejected_though_verified_active_or_paying(
    source: Connection, migrated_db: str, tmp_path: Path
) -> None:
    """By SQL, and by the evaluator, which an address that is not ASCII is left to: the facts are the same."""
    signed_up = datetime(2026, 3, 4, 12)  # a Wednesday
    known: dict[uuid.UUID, tuple[str, bool, timedelta, bool]] = {}

    def user(
        domain: str, letter: str, *, verified: bool = False, other: bool = False, seen: timedelta = timedelta(),
        paid: bool = False, purchase: dict[str, Any] | None = None, subscription: dict[str, Any] | None = None,
    ) -> uuid.UUID:  # fmt: skip
        id_ = add_user(source, signedUpAt=signed_up, lastActiveAt=signed_up + seen)
        add_channel(source, id_, f"{letter}@{domain}", isVerified=verified)
        if other:
            add_channel(source, id_, f"{letter}2@elsewhere.io", isPrimary=None)
        row: dict[str, Any] = {"tenancyId": MINE, "customerId": str(id_), "customerType": "USER", "product": {}}
        row |= {"quantity": 1, "creationSource": "PURCHASE_PAGE"}
        for _ in range(2) if purchase is not None else ():  # however often
            insert(source, "OneTimePurchase", row | {"id": uuid.uuid4()} | (purchase or {}))
        if subscription is not None:
            period = {"currentPeriodStart": signed_up, "currentPeriodEnd": signed_up, "cancelAtPeriodEnd": False}
            own = {"id": uuid.uuid4(), "status": "active", "updatedAt": "now"} | subscription
            insert(source, "Subscription", row | period | own)
        known[id_] = (f"{letter}***@{domain}", verified or other, seen, paid)
        return id_

    day = timedelta(days=1)
    for letter in "a\u00e9":
        user("bad.io", letter)
        user("bad.io", letter, seen=day - timedelta(seconds=1))
        user("bad.io", letter, purchase={"creationSource": "TEST_MODE"}, subscription={"status": "trialing"})
        user("bad.io", letter, purchase={"refundedAt": "now"}, subscription={"creationSource": "API_GRANT"})
        user("bad.io", letter, purchase={"customerType": "CUSTOM"})
        user("bad.io", letter, verified=True)
        user("bad.io", letter, other=True)
        user("bad.io", letter, seen=day)
        user("bad.io", letter, paid=True, purchase={})
        user("bad.io", letter, paid=True, subscription={"status": "canceled"}, seen=3 * day, verified=True)
        user("poor.io", letter, verified=True)
        del known[user("good.io", letter, verified=True)]
    signed_up += timedelta(days=5)  # the next Monday
    late, restricted = user("bad.io", "z", verified=True), user("poor.io", "z")
    source.commit()
    project = Project(tmp_path, migrated_db)
    (tmp_path / "r.yaml").write_text(
        'rules:\n  bad: {condition: \'emailDomain == "bad.io" && email != ""\', action: {type: reject}}\n'
        "  poor: {condition: 'email.endsWith(\"poor.io\")', action: {type: restrict}}\n"
    )
    step = ("rules", "backtest", "--rules", "r.yaml", "--auth-method", "password")
    document = project.run(*step, "--csv", "affected.csv", "--json").json
    assert (document["users"], document["judged_in_python"]) == (26, 12)
    first = {"users": 10, "verified": 6, "active": 4, "paying": 4}
    second = {"users": 1, "verified": 1, "active": 0, "paying": 0}
    assert document["weeks"] == [
        {"week": "2026-03-02", "users": 24, "rejected": 20, "restricted": 2, "false_positives": first},
        {"week": "2026-03-09", "users": 2, "rejected": 1, "restricted": 1, "false_positives": second},
    ]
    assert document["false_positives"] == {"users": 11, "verified": 7, "active": 4, "paying": 4}
    with (tmp_path / "affected.csv").open(encoding="utf-8", newline="") as file:
        rows = {uuid.UUID(row["id"]): row for row in csv.DictReader(file)}
    assert {*list(rows)[-2:]} == {late, restricted}
    assert {id_: (row["email"], row["verified"], row["paid"]) for id_, row in rows.items()} == {
        id_: (email, str(verified).lower(), str(paid).lower()) for id_, (email, verified, _, paid) in known.items()
    }
    for id_, row in rows.items():
        assert (
            datetime.fromisoformat(row["last_active_at"]) - datetime.fromisoformat(row["signed_up_at"]) == known[id_][2]
        )
    assert rows[late] | {"tenancy": str(MINE), "decision": "reject", "rule": "bad"} == rows[late]
    assert rows[restricted] | {"decision": "restrict", "rule": "poor"} == rows[restricted]
    shown = project.run(*step, "--csv", "whole.csv", "--show-emails")
    assert "false positives: 11 of 21 rejected (7 verified, 4 active, 4 paying)" in shown.stdout
    assert "\u00e92@" not in (whole := (tmp_path / "whole.csv").read_text())
    assert "\u00e9@bad.io" in whole
    assert project.run(*step, "--csv", "nowhere/x.csv").code == 2


def test_it_says_that_it_is_at_work_while_the_server_is(
    connect: Connect, migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackctl.rules.stored.backtest._TICK", 0.01)
    labels: list[str] = []

    class Watched(Progress):
        def advance(self, amount: int, note: str = "") -> None:
            locker.rollback()  # the first sign of life lets it go on

    def show(label: str, total: int | None) -> AbstractContextManager[Progress]:
        labels.append(label)
        return nullcontext(Watched())

    locker = connect(migrated_db)
    locker.execute('LOCK TABLE "ProjectUser" IN ACCESS EXCLUSIVE MODE')
    assert backtest(connect(migrated_db), by_method(), Scope(), None, show).users == 0
    assert labels == ["judging users"]


def test_nothing_can_be_written(source: Connection, connect: Connect, migrated_db: str) -> None:
    conn = connect(migrated_db)
    assert isinstance(backtest(conn, by_method(), Scope()), Report)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        conn.execute('DELETE FROM "ProjectUser"')


def test_the_command_masks_addresses(source: Connection, migrated_db: str, tmp_path: Path) -> None:
    add_channel(source, add_user(source), "Robert@Example.com")
    source.commit()
    project = Project(tmp_path, migrated_db)
    project.settings["sign_up_rules"] = "./rules.yaml"
    project.write()
    (tmp_path / "rules.yaml").write_text("default_action: allow\n")
    rule = "{condition: 'emailDomain == \"example.com\"', action: {type: reject}}"
    (tmp_path / "new.yaml").write_text(f"rules: {{r: {rule}}}\n")
    arguments = ("rules", "backtest", "--against", "new.yaml")
    result = project.run(*arguments, "--json")
    document = result.json
    assert result.code == 0, result
    assert document["outcomes"]["default-allow"] == document["users"] == 1
    assert [one["email"] for one in document["against"]["newly_rejected"]["examples"]] == ["R***@Example.com"]
    shown = project.run(*arguments)
    assert "newly rejected: 1 user" in shown.stdout
    assert "Robert" not in shown.stdout
    assert "Robert@Example.com" in project.run(*arguments, "--show-emails").stdout
    for bad in (("--auth-method", "otop"), ("--since", "yesterday"), ("--sample", "0"), ("--tenancy", "x")):
        assert project.run("rules", "backtest", *bad).code == 2
