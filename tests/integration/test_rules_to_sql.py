"""Generated conditions for generated users: PostgreSQL must say what the evaluator says, or nothing.

Another seed or another number of conditions: STACKCTL_RULES_SEED, STACKCTL_RULES_CASES.
"""

from __future__ import annotations

import os
import random
from itertools import chain
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.rules.cel import patterns
from stackctl.rules.cel.evaluate import compile_condition
from stackctl.rules.cel.pattern_sql import translate_pattern
from stackctl.rules.cel.to_sql import to_predicate
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.model import Context
from tests.rule_generator import Generator

if TYPE_CHECKING:
    from tests.conftest import Connect

Connection = psycopg.Connection[Any]

SEED = int(os.environ.get("STACKCTL_RULES_SEED", "20261124"))
CASES = int(os.environ.get("STACKCTL_RULES_CASES", "2000"))
USERS = [
    Context(),
    Context("bob@gmail.com", "DE", "password", "", 80, 0),
    Context("bob+1@a.com", "US", "oauth", "github", 81, 100),
    Context('quo"te\\@é.io', "", "otp", "", 1, 5),
    Context("é@x.io", "DE", "passkey", "", 100, 1),
    Context("new\nline@a", "GB", "oauth", "", 7, 7),
]


def row(user: Context) -> sql.Composable:
    values = (user.email, user.email_domain, user.country_code, user.auth_method, user.oauth_provider)
    texts = [sql.SQL('{}::text COLLATE "C"').format(sql.Literal(value)) for value in values]
    numbers = [sql.SQL("{}::smallint").format(sql.Literal(value)) for value in (user.bot, user.free_trial_abuse)]
    return sql.SQL("({})").format(sql.SQL(", ").join([*texts, *numbers]))


@pytest.mark.quick
def test_what_sql_decides_is_what_the_evaluator_says(connect: Connect, empty_db: str) -> None:
    conn = connect(empty_db)
    print(f"seed {SEED}, {CASES} conditions, {len(USERS)} users")
    relation = sql.SQL(
        "(VALUES {}) AS u(email, email_domain, country_code, auth_method, oauth_provider, bot, free_trial_abuse)"
    ).format(sql.SQL(", ").join(map(row, USERS)))
    generator = Generator(SEED)
    decided = open_ = 0
    for _ in range(CASES // 20):
        conditions = [generator.condition() for _ in range(20)]
        query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(map(to_predicate, conditions)), relation)
        functions = [compile_condition(condition) for condition in conditions]
        for user, said in zip(USERS, conn.execute(query), strict=True):
            for condition, function, found in zip(conditions, functions, said, strict=True):
                try:
                    expected = function(user.fields())
                except EvaluationError:
                    expected = None
                decided, open_ = decided + (found is not None), open_ + (found is None)
                assert found is None or found is expected, f"{condition} for {user}"
    print(f"{decided} decided by SQL, {open_} left")
    assert decided > 2 * open_ > 0


# fmt: off
PIECES = [
    "a", "b", "@", ".", "\\.", "\\d", "\\w", "\\W", "\\s", "\\S", "\\b", "\\z", "[a-c]", "[^a]", "[\\w.-]",
    "[a\\-z]", "(a|b)", "(?:ab)", "^", "$", "*", "+", "?", "{2}", "{1,3}", "*?", "|", "\\n", "é", "-", "_", "[^\\d]",
    "\\+", "((a?){0,250}){0,4}b", "(", ")", "?)", "{0,90}", "{", "]",
    "\\t", "\\r", "\\f", "\\v", "[\\t\\v]", "[^\\f]", "[^\\s]",
]
# fmt: on
STRINGS = [
    "",
    "a",
    "b",
    "aa",
    "ab",
    "a@b.c",
    "a.b",
    "a\nb",
    "é",
    "aé",
    "1",
    "a1_",
    " ",
    "\t",
    "\v",
    "\f",
    "\r",
    "a-b",
    "]",
    "{",
    "bb@aa.ab",
    "a b",
    "\n",
    "a\n",
    "\na",
    "+",
    "A",
    "İ",
    "\u00a0",
    "\u2028",
]  # fmt: skip


def test_translated_patterns_find_what_re2_finds(connect: Connect, empty_db: str) -> None:
    conn = connect(empty_db)
    conn.execute("SET statement_timeout = '2s'")
    assert translate_pattern("((a?){0,250}){0,4}b") is None  # 21 s of PostgreSQL's for two users
    assert translate_pattern("([a-z]{1,60}[.]){1,60}") is None
    assert translate_pattern("([a-z]{1,9}[.]){1,9}b") is not None
    chance = random.Random(SEED)
    tried = 0
    several = ("".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 6))) for _ in range(CASES))
    for pattern in chain(PIECES, several):
        try:
            search = patterns.compile_pattern(pattern)
        except ValueError:
            assert translate_pattern(pattern) is None
            continue
        if (found := translate_pattern(pattern)) is None:
            continue
        tried += 1
        query = sql.SQL(
            'SELECT s COLLATE "C" ~ {} FROM unnest({}::text[]) WITH ORDINALITY AS t(s, n) ORDER BY n'
        ).format(sql.Literal(found), sql.Literal(STRINGS))
        said = [answer for (answer,) in conn.execute(query)]
        assert said == [search(text) for text in STRINGS], f"{pattern} as {found}"
    print(f"seed {SEED}: {tried} patterns by {len(STRINGS)} strings")
    assert tried > CASES / 5


def test_what_is_equal_to_one_of_many_is_one_in() -> None:
    same = " || ".join(f'email == "a{number}"' for number in range(5))
    query = to_predicate(f'{same} || countryCode == "DE" || riskScores.bot == 1').as_string(None)
    assert query.count(" IN (") == 2
    assert "'a4'" in query.partition("IN")[2].partition("IN")[0]
