"""Queries that add rows or read them, of which a file may hold millions in a few shapes."""

from __future__ import annotations

import re
from functools import lru_cache

from stackctl.migrate.parser.facts import RowsWritten, StatementFacts
from stackctl.postgres import lexer

_FIRST = re.compile(r"\s*(?:INSERT|SELECT|VALUES|WITH)\b", re.IGNORECASE)
_ROW = r"\( [^()]* \)"
_ROWS = re.compile(rf"{_ROW}(?: , {_ROW})+")


def parse_plain_query(text: str, schema: str) -> StatementFacts | None:
    """The facts of a query that changes no rows that are there, unplaced; None for others, and what is not understood.

    Queries that differ in nothing but literals and repeated rows are parsed once.
    """
    if not _FIRST.match(text) or "--" in text or "/*" in text:
        return None
    tokens = lexer.list_token_texts(text)
    shape = " ".join("''" if one[-1] == "'" else "0" if "0" <= one[0] <= "9" else one for one in tokens)
    facts = _parse_shape(_ROWS.sub(_drop_repeated_rows, shape), schema)
    if facts is None:
        return None
    strings = (one[one.index("'") + 1 : -1].replace("''", "'") for one in tokens if one[-1] == "'")
    return StatementFacts(facts, frozenset(strings))


def _drop_repeated_rows(rows: re.Match[str]) -> str:
    return " , ".join(dict.fromkeys(re.findall(_ROW, rows[0])))


@lru_cache(maxsize=1000)
def _parse_shape(shape: str, schema: str) -> tuple[RowsWritten, ...] | None:
    from stackctl.migrate.parser import queries  # and sqlglot
    from stackctl.migrate.parser.token_reader import NotUnderstood

    try:
        facts = tuple(queries.parse_query(shape, schema))
    except NotUnderstood:
        return None
    # What UPDATE and DELETE do depends on the literals of their conditions.
    inserted = tuple(fact for fact in facts if isinstance(fact, RowsWritten) and fact.how == "INSERT")
    return inserted if len(inserted) == len(facts) else None
