"""Queries without facts, of which a file may hold millions in a few shapes: they add rows, or read them."""

from __future__ import annotations

import re
from functools import lru_cache

from stackctl.postgres import lexer

_FIRST = re.compile(r"\s*(?:INSERT|SELECT|VALUES|WITH)\b", re.IGNORECASE)
_ROW = r"\( [^()]* \)"
_ROWS = re.compile(rf"{_ROW}(?: , {_ROW})+")


def find_strings(text: str, schema: str) -> frozenset[str] | None:
    """The strings in a query that is understood and has no facts; None for everything else, and where it is unclear.

    Queries that differ in nothing but literals and repeated rows are parsed once.
    """
    if not _FIRST.match(text) or "--" in text or "/*" in text:
        return None
    tokens = lexer.list_token_texts(text)
    shape = " ".join("''" if one[-1] == "'" else "0" if "0" <= one[0] <= "9" else one for one in tokens)
    if not _is_understood(_ROWS.sub(_drop_repeated_rows, shape), schema):
        return None
    return frozenset(one[one.index("'") + 1 : -1].replace("''", "'") for one in tokens if one[-1] == "'")


def _drop_repeated_rows(rows: re.Match[str]) -> str:
    return " , ".join(dict.fromkeys(re.findall(_ROW, rows[0])))


@lru_cache(maxsize=1000)
def _is_understood(shape: str, schema: str) -> bool:
    from stackctl.migrate.parser import queries  # and sqlglot
    from stackctl.migrate.parser.token_reader import NotUnderstood

    try:
        return not list(queries.parse_query(shape, schema))
    except NotUnderstood:
        return False
