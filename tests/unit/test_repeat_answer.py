"""What the text of a repeated statement says of its answer."""

from __future__ import annotations

import pytest

from stackctl.migrate.parser.repeat_answer import find_unclear_answer

CLEAR = [
    "SELECT count(*) > 0 AS should_repeat_migration FROM todo",
    "select true as SHOULD_REPEAT_MIGRATION",
    'SELECT true "should_repeat_migration"',
    "WITH done AS (UPDATE a SET x = 1 RETURNING 1) SELECT count(*) > 0 AS should_repeat_migration FROM done",
    "UPDATE a SET x = 1 WHERE id = 1 RETURNING true AS should_repeat_migration",
    "UPDATE a SET x = 1",
    "WITH b AS (SELECT 1) UPDATE a SET x = 1 FROM b",
    "WITH b AS (SELECT 1) INSERT INTO a SELECT * FROM b",
    "SELECT * FROM backfill_batch()",
    "SELECT b.* FROM backfill_batch() AS b",
    "SELECT 'x' AS note, EXISTS (SELECT 1 FROM a) AS should_repeat_migration",
    "SELECT 'true'::boolean AS should_repeat_migration",
    "CREATE TABLE q ()",
    "DO $$ BEGIN END $$",
    "",
]
UNCLEAR = [
    ("SELECT 1", 0),
    ("SELECT count(*) > 0 AS should_repeat FROM todo", 0),
    ("WITH d AS (DELETE FROM a RETURNING 1) SELECT count(*) > 0 FROM d", 38),
    ("UPDATE a SET x = 1 RETURNING id", 19),
    ("VALUES (true)", 0),
    ("SELECT 'true' AS should_repeat_migration", 7),
    ("SELECT NULL AS should_repeat_migration", 7),
    ("SELECT 2 AS a, 1 should_repeat_migration", 15),
]


@pytest.mark.parametrize("sql", CLEAR)
def test_a_clear_answer(sql: str) -> None:
    assert find_unclear_answer(sql) is None


@pytest.mark.parametrize(("sql", "at"), UNCLEAR)
def test_an_unclear_answer_is_found_in_its_place(sql: str, at: int) -> None:
    found = find_unclear_answer(sql)
    assert found is not None
    assert found[0] == at
