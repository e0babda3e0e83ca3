"""Statements of one file, told apart as the server tells them: generated files whose statements are known.

The server is asked by the simple protocol, which answers each statement of a text with a result of its own. The seed is
in the test's name, and in `SPLIT_SEED` where a run is to be repeated.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import pq

from stackctl.postgres.lexer import list_token_texts, split_statements, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.conftest import Connect

SEED = int(os.environ.get("SPLIT_SEED") or random.SystemRandom().randrange(10**6))
FILES, STATEMENTS = 80, 60
# Words that mean something to those who split by words; all of them may be names somewhere.
WORDS = ("begin", "end", "atomic", "case", "declare", "function", "create", "language", "do", "loop", "if", "return")
SPACES = (" ", "\n", "\t", "\r\n", " -- ; ' $$ /* \n", "/* ; /* nested ' */ $a$ */", "\f", " --\r")
TAGS = ("", "a", "body", "_x1", "été", "\u00a0", "B2")


class Generator:
    """Random statements that the server accepts, each of which leaves nothing that another could meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def space(self) -> str:
        return "".join(self.random.choices(SPACES, k=self.random.randrange(1, 3)))

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def label(self) -> str:
        """What may stand behind AS."""
        return self.pick(*WORDS, *(f'"{word};"' for word in WORDS), '"a""b;"', 'U&"d\\0061t;a"', "été", "a$b", "x$$y")

    def text(self) -> str:
        junk = "".join(self.random.choices(["a", ";", "--", "/*", "*/", "$$", '"', " ", "BEGIN ATOMIC", "é"], k=4))
        tag = self.pick(*TAGS)
        gap = self.pick("\n", " -- it's ; \n", "\r\n\t")
        return self.pick(
            f"'{junk}'", f"'it''s {junk}'", "'a\\'", f"E'a\\'{junk}'", "e'\\\\'", f"E'a''\\'{junk}'",
            f"E'a'{gap}'b\\'{junk}'", f"'a'{gap}'{junk}'", "U&'d\\0061t;a'", f"N'{junk}'",
            f"${tag}${junk.replace('$', '')};'${tag}$" if tag else f"$${junk.replace('$', '')};'$$",
            f"$a$ $b$ ; $b$ {junk.replace('$', '')} $a$",
        )  # fmt: skip

    def expression(self) -> str:
        return self.pick(
            self.text, lambda: str(self.random.randrange(100)), lambda: "1.5e3", lambda: "1_000", lambda: "0x1F",
            lambda: f"CASE WHEN true THEN {self.text()} ELSE {self.text()} END",
            lambda: f"(SELECT {self.text()} AS {self.label()})", lambda: "B'101'", lambda: "x'1F'",
            lambda: "2 +-- ;\n 3", lambda: "4 */* ; */ 5",
        )()  # fmt: skip

    def query(self) -> str:
        columns = ", ".join(f"{self.expression()} AS {self.label()}" for _ in range(self.random.randrange(1, 3)))
        return f"SELECT{self.space()}{columns}"

    def rows(self) -> str:
        """What needs no closer look than its semicolon, or only seems so."""
        values = ", ".join(
            self.pick(self.text(), "'it''s ;'", "'a)'", "'('", "-1", "6/2", "(1)", r"'a\'", "date'2020-01-01'", "N'x'")
            for _ in range(self.random.randrange(1, 4))
        )
        return self.pick(
            f"INSERT INTO ruled VALUES{self.space()}(1), (length(concat({values})))", f'SELECT {values}, 1 "a;b"',
            f"WITH a AS (SELECT {values}) UPDATE ruled SET x = 2", f"VALUES ({values})", "DELETE FROM ruled",
        )  # fmt: skip

    def body(self) -> str:
        query = self.pick(self.query, self.rows)
        statements = "".join(f"{query()}{self.space()};{self.space()}" for _ in range(self.random.randrange(3)))
        return f"BEGIN{self.space()}ATOMIC{self.space()}{statements}SELECT 1;{self.space()}END"

    def routine(self) -> str:
        arguments = self.pick("", "begin int", "atomic text, begin int", "a int DEFAULT (CASE WHEN true THEN 1 END)")
        replace = self.pick("", "OR REPLACE ", "or/* ; */replace ")
        head = f"CREATE {replace}FUNCTION {self.name()}({arguments}){self.space()}RETURNS int"
        return self.pick(
            lambda: f"{head} {self.body()}", lambda: f"{head} RETURN (SELECT 1 AS {self.pick('begin', 'atomic')})",
            lambda: f"{head} LANGUAGE sql AS $$ SELECT 1; SELECT 2; $$",
            lambda: f"{head} LANGUAGE plpgsql AS $f$ BEGIN IF true THEN RETURN 1; END IF; END; $f$",
            lambda: f"CREATE PROCEDURE {self.name()}(){self.space()}BEGIN ATOMIC{self.space()}END",
            lambda: f"{head} LANGUAGE sql BEGIN ATOMIC; SELECT 1; END".replace("ATOMIC;", "ATOMIC"),
        )()  # fmt: skip

    def table(self) -> str:
        name = self.name()
        columns = ", ".join(f"{word} int" for word in self.random.sample(("begin", "atomic", "function", "x$1"), 2))
        return f"CREATE TABLE {name} ({columns}, CHECK ({self.random.randrange(9)} > 0 OR true))"

    def statement(self) -> str:
        return self.pick(
            self.query, self.query, self.query, self.rows, self.rows, self.routine, self.table,
            lambda: "CREATE OR REPLACE RULE twice AS ON INSERT TO ruled DO ALSO"
            f" ({self.query()}; UPDATE ruled SET x = 1;{self.space()}NOTIFY done)",
            lambda: "CREATE OR REPLACE RULE more AS ON DELETE TO ruled DO ALSO"
            f" (NOTIFY a;{self.pick('', self.space())}INSERT INTO other VALUES ({self.pick('1', 'length(chr(40))')}))",
            lambda: f"DO $x$ BEGIN PERFORM {self.text().replace('$x$', '')}; END $x$",
            lambda: "COMMENT ON TABLE ruled IS " + self.pick("'a;b'", r"E'a\';b'", "$$;$$"),
            lambda: f"PREPARE {self.name()} AS {self.query()}",
        )()  # fmt: skip


def generate_files() -> Iterator[tuple[int, list[str], str]]:
    for number in range(FILES):
        generator = Generator(SEED * 1000 + number)
        statements = [generator.statement() for _ in range(STATEMENTS)]
        text = "".join(f"{generator.space()}{statement}{generator.space()};" for statement in statements)
        yield SEED * 1000 + number, statements, text + generator.pick("", ";;", generator.space(), "-- end ;")


def split(text: str, *, script: bool = False) -> list[str]:
    tokens = tokenize(text, script=script)
    spans = split_statements([token for token in tokens if token.kind != "comment"])
    return [text[span[0].start : span[-1].end] for span in spans]


def count_results(conn: psycopg.Connection[Any], text: str) -> int:
    """How many statements the server sees; it may not refuse one."""
    conn.pgconn.send_query(text.encode())
    count = 0
    while result := conn.pgconn.get_result():
        assert result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK), result.error_message.decode()
        count += 1
    return count


@pytest.fixture
def conn(empty_db: str, connect: Connect) -> psycopg.Connection[Any]:
    conn = connect(empty_db, autocommit=True)
    conn.execute("CREATE TABLE ruled (x int); CREATE TABLE other (x int); SET client_min_messages = error")
    return conn


def test_every_statement_is_what_the_server_sees(conn: psycopg.Connection[Any]) -> None:
    total = 0
    for seed, statements, text in generate_files():
        found = split(text)
        assert found == statements, f"SPLIT_SEED={seed // 1000}, file {seed % 1000}"
        assert split(text, script=True) == statements, f"SPLIT_SEED={seed // 1000}, file {seed % 1000}"
        for statement in statements:
            if "--" not in statement and "/*" not in statement:
                assert list_token_texts(statement) == [token.text for token in tokenize(statement)]
        seen = count_results(conn, f"BEGIN;{text}\n;DEALLOCATE ALL; ROLLBACK")
        assert seen == len(statements) + 3, f"SPLIT_SEED={seed // 1000}, file {seed % 1000}"
        total += len(statements)
    print(f"seed {SEED}: {total} statements in {FILES} files")


@pytest.mark.parametrize(
    "first",
    [
        "CREATE FUNCTION f(begin int, atomic int) RETURNS int LANGUAGE sql RETURN begin",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN (SELECT 1 AS begin)",
        'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS begin; SELECT 2 AS end; SELECT 3 AS "case"; END',
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT t.end FROM (SELECT 1 AS end) AS t; END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN CASE 1 WHEN 1 THEN 2 END END; END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 end; END",
        "CREATE PROCEDURE f() BEGIN ATOMIC END",
        "CREATE TABLE begin (atomic int, function int)",
        "CREATE VIEW begin AS SELECT 1 AS atomic, 2 AS function",
        "SELECT E'a' -- it's\n'b\\'; c'",
        "SELECT $\u00a0$ ; $\u00a0$",
        "SELECT B'1'&B'0', ''\"x\", $$a$$\"b;\"",
        "SELECT 1, 'it''s' \"a;\"",
        "CREATE RULE r AS ON INSERT TO ruled DO ALSO (NOTIFY a; INSERT INTO other VALUES (length('(')))",
        "CREATE RULE r AS ON INSERT TO ruled DO ALSO (NOTIFY a; DELETE FROM other WHERE ':(' = 'x')",
    ],
)
def test_a_name_opens_no_body_and_closes_none(conn: psycopg.Connection[Any], first: str) -> None:
    for script in (False, True):
        found = split(f"{first};\nDROP TABLE ruled; SELECT 1;", script=script)
        assert found == [first, "DROP TABLE ruled", "SELECT 1"]
    assert count_results(conn, f"BEGIN; {first};\nDROP TABLE ruled; ROLLBACK") == 4
