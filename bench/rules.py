"""What sign-up rules cost: on a million users in the database, on a file of sample users, and on a suite of tests.

    python -m bench.rules [--users N]

The backtest is compared with one hand-written pass over the same users, whose counts must be the same. A goal that is
missed is marked; the exit code is 0 all the same.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from stackctl.postgres import embedded
from stackctl.rules import rules_file, sample_users
from stackctl.rules.cel.reference import compile_with_reference
from stackctl.rules.decide import Judge
from stackctl.rules.model import Action, Rule, RuleSet
from stackctl.rules.stored.backtest import Scope, backtest

USERS = 1_000_000
SAMPLES = 100_000
CASES = 500
ROUNDS = 3
BACKTEST_GOAL = 3.0  # times the hand-written pass
SPEED_GOAL = 200_000  # evaluations a second
SUITE_GOAL = 1.0  # seconds, start included

SAMPLE_RULES = (
    ("reject", 'emailDomain in ["tempmail.com", "trash.me"]', "email_domain IN ('tempmail.com', 'trash.me')"),
    ("restrict", "riskScores.bot > 80", "bot > 80"),
    ("allow", 'email.endsWith(".edu") && countryCode == "US"', "right(email, 4) = '.edu' AND country_code = 'US'"),
    ("log", 'countryCode in ["DE", "FR", "AT"]', "country_code IN ('DE', 'FR', 'AT')"),
    ("restrict", "riskScores.free_trial_abuse >= 90 || riskScores.bot >= 95", "free_trial_abuse >= 90 OR bot >= 95"),
)
TYPICAL = SAMPLE_RULES + tuple(
    rule
    for number in range(5)
    for rule in (
        ("log", f'email.contains("+{number}")', f"strpos(email, '+{number}') > 0"),
        (
            "restrict",
            f'email.matches("^[a-z]+{number}[0-9]*@") && riskScores.bot > {number}',
            f"email ~ '^[a-z]+{number}[0-9]*@' AND bot > {number}",
        ),
        ("log", f'email.startsWith("user{number}") && countryCode != ""',
         f"starts_with(email, 'user{number}') AND country_code <> ''"),
    )
)  # fmt: skip
FILL = """
INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode") VALUES ('p', now(), 'P', FALSE);
INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization")
VALUES ('00000000-0000-0000-0000-00000000000a', now(), 'p', 'main', 'TRUE');
SET session_replication_role = replica;
INSERT INTO "ProjectUser" ("tenancyId", "projectUserId", "updatedAt", "mirroredProjectId", "mirroredBranchId",
                           "signUpCountryCode", "signUpRiskScoreBot", "signUpRiskScoreFreeTrialAbuse")
SELECT '00000000-0000-0000-0000-00000000000a', ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, now(), 'p',
       'main', (ARRAY['US', 'DE', 'FR', 'GB', NULL])[1 + n %% 5], n %% 101, (n * 7) %% 101
FROM generate_series(1, %(users)s) AS n;
INSERT INTO "ContactChannel" (id, "tenancyId", "projectUserId", "updatedAt", "type", "isPrimary", "isVerified", "value")
SELECT gen_random_uuid(), "tenancyId", "projectUserId", now(), 'EMAIL', 'TRUE', TRUE,
       'user' || "signUpRiskScoreBot" || '@' || (ARRAY['gmail.com', 'tempmail.com', 'mit.edu', 'x.io'])
       [1 + "signUpRiskScoreFreeTrialAbuse" %% 4]
FROM "ProjectUser";
"""
BY_HAND = """
SELECT {counts} FROM (
    SELECT lower(c."value") COLLATE "C" AS email, split_part(lower(c."value"), '@', -1) COLLATE "C" AS email_domain,
           coalesce(u."signUpCountryCode", '') COLLATE "C" AS country_code, u."signUpRiskScoreBot" AS bot,
           u."signUpRiskScoreFreeTrialAbuse" AS free_trial_abuse
    FROM "ProjectUser" AS u
    LEFT JOIN "ContactChannel" AS c ON c."tenancyId" = u."tenancyId" AND c."projectUserId" = u."projectUserId"
        AND c."type" = 'EMAIL' AND c."isPrimary" = 'TRUE'
    WHERE NOT u."isAnonymous" OFFSET 0) AS u
"""


def rules(typical: tuple[tuple[str, str, str], ...], only_log: bool = False) -> RuleSet:
    return RuleSet(
        "allow",
        tuple(
            Rule(f"r{place}", f"r{place}", True, 100 - place, condition, Action("log" if only_log else action))  # type: ignore[arg-type]
            for place, (action, condition, _) in enumerate(typical)
        ),
    )


def verdict(good: bool) -> str:
    return "" if good else "   MISSED"


def in_the_database(users: int, directory: Path) -> None:
    server = embedded.attach(directory, options={"fsync": "off", "max_wal_size": "8GB", "jit": "off"})
    try:
        url = server.url()
        subprocess.run([sys.executable, "-m", "stackctl", "migrate", "up", "--database-url", url], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        with psycopg.connect(url, autocommit=True) as conn:
            with psycopg.ClientCursor(conn) as cursor:
                cursor.execute(FILL, {"users": users})
            conn.execute("VACUUM ANALYZE")
            counts = ", ".join(f"count(*) FILTER (WHERE {by_hand})" for *_, by_hand in TYPICAL)
            hand: list[float] = []
            row: tuple[int, ...] | None = None
            ours: list[float] = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                row = conn.execute(BY_HAND.format(counts=counts)).fetchone()  # type: ignore[call-overload]
                hand.append(time.perf_counter() - started)
                with psycopg.connect(url) as other:
                    started = time.perf_counter()
                    backtest(other, rules(TYPICAL), Scope(auth_method="password"))
                    ours.append(time.perf_counter() - started)
            with psycopg.connect(url) as other:
                report = backtest(other, rules(TYPICAL, only_log=True), Scope(auth_method="password"))
        assert row is not None
        assert tuple(report.by_rule[f"r{place}", "matched"] for place in range(len(TYPICAL))) == row
        mine, theirs = statistics.median(ours), statistics.median(hand)
        print(f"backtest, {users:,} users x {len(TYPICAL)} rules: {mine:.2f} s, one pass by hand {theirs:.2f} s: "
              f"{mine / theirs:.2f} (at most {BACKTEST_GOAL}){verdict(mine / theirs <= BACKTEST_GOAL)}")  # fmt: skip
    finally:
        server.release()


def from_a_file(directory: Path) -> None:
    chance = random.Random(1)
    path = directory / "users.csv"
    domains = ["gmail.com", "tempmail.com", "mit.edu", "x.io"]
    with path.open("w", encoding="utf-8") as file:
        file.write("email,auth_method,country_code,bot,free_trial_abuse\n")
        for number in range(SAMPLES):
            file.write(f"user{number}@{chance.choice(domains)},password,{chance.choice(['US', 'DE', ''])},"
                       f"{chance.randrange(101)},{chance.randrange(101)}\n")  # fmt: skip
    found = rules(SAMPLE_RULES)
    judge = Judge(found)
    started = time.perf_counter()
    users = [person.context for person in sample_users.load_users(path)]
    read = time.perf_counter() - started
    started = time.perf_counter()
    decisions = [judge.decide(user) for user in users]
    took = time.perf_counter() - started
    evaluations = sum(len(decision.evaluations) for decision in decisions)
    speed = evaluations / took
    programs = {rule.id: compile_with_reference(rule.condition or "") for rule in found.rules}
    for decision in random.Random(2).sample(decisions, 300):
        for one in decision.evaluations:
            assert (one.status == "matched") == programs[one.rule.id](decision.context.fields())
    print(f"{SAMPLES:,} users x {len(SAMPLE_RULES)} rules: {took:.2f} s, {speed:,.0f} evaluations a second "
          f"(at least {SPEED_GOAL:,}){verdict(speed >= SPEED_GOAL)}; reading the file {read:.2f} s")  # fmt: skip


def a_suite(directory: Path) -> None:
    lines = [f"  r{place}: {{condition: {condition!r}, action: {{type: {action}}}}}"
             for place, (action, condition, _) in enumerate(SAMPLE_RULES)]  # fmt: skip
    (directory / "rules.yaml").write_text("\n".join(["rules:", *lines]), encoding="utf-8")
    rules_file.load_rules(directory / "rules.yaml")
    rest = "auth_method: otp}, expect: {allowed: true}}"
    cases = [f"  - {{name: case {number}, user: {{email: u{number}@x.de, {rest}" for number in range(CASES)]
    suite = directory / "a.rules-test.yaml"
    suite.write_text("\n".join(["rules: rules.yaml", "tests:", *cases]), encoding="utf-8")
    times: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "stackctl", "rules", "test", str(suite)], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        times.append(time.perf_counter() - started)
    took = statistics.median(times)
    print(
        f"rules test, {CASES} cases, start included: {took:.2f} s (at most {SUITE_GOAL}){verdict(took <= SUITE_GOAL)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    users = parser.parse_args().users
    with tempfile.TemporaryDirectory(prefix="stackctl-bench-") as directory:
        from_a_file(Path(directory))
        a_suite(Path(directory))
        in_the_database(users, Path(directory) / "postgres")


if __name__ == "__main__":
    main()
