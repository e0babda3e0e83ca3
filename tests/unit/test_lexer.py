"""Somebody else's statement, shown without what it says."""

from __future__ import annotations

import pytest

from stackctl.postgres.lexer import hide_literals


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ALTER ROLE r PASSWORD 'hunter2'", "ALTER ROLE r PASSWORD '…'"),
        (
            "SELECT 'it''s', E'it\\'s', U&'x', b'01', $1, \"a b\"\n FROM t",
            "SELECT '…', '…', '…', '…', $1, \"a b\" FROM t",
        ),
        ("DO $x$ BEGIN PERFORM 'hunter2'; END $x$", "DO '…'"),
        ("SELECT 4111111111111111, x1 -- hunter2\n, 1.5e3/* hunter2 */FROM t", "SELECT …, x1 , … FROM t"),
        ("", ""),
    ],
)
def test_literals_and_comments_are_left_out(text: str, shown: str) -> None:
    assert hide_literals(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE r PASSWORD 'hunter2'; SELECT 1",
        "ALTER ROLE r PASSWORD E'\\'hunter2'; SELECT 1",
        "ALTER ROLE r PASSWORD $secret$hunter2$secret$",
        "SELECT 1 /* hunter2 */",
        "SELECT 1 -- hunter2",
        "ALTER ROLE r PASSWORD 'it\\'s hunter2'",
    ],
)
def test_a_statement_that_is_cut_off_anywhere_says_nothing_either(text: str) -> None:
    for end in range(len(text) + 1):
        assert "hunter" not in hide_literals(text[:end])
