"""What a change of a column's type keeps."""

from __future__ import annotations

import pytest

from stackctl.migrate.schema.alterations import is_widened


@pytest.mark.parametrize(
    ("before", "after", "widened"),
    [
        ("numeric(10,2)", "numeric(12,2)", True),
        ("numeric(10,2)", "numeric(12,4)", True),
        ("numeric(10,2)", "numeric", True),
        ("numeric(10,2)", "numeric(10,3)", False),
        ("numeric(10,2)", "numeric(12,1)", False),
        ("numeric(3,-2)", "numeric(5,0)", True),
        ("numeric", "numeric(10,2)", False),
        ("integer", "numeric(10,2)", False),
        ("character varying(20)", "character varying(50)", True),
        ("character varying(20)", "character varying(10)", False),
        ("character varying(20)", "text", True),
        ("smallint", "bigint", True),
        ("bigint", "integer", False),
    ],
)
def test_a_type_is_widened_when_every_value_stays(before: str, after: str, widened: bool) -> None:
    assert is_widened(before, after) is widened
