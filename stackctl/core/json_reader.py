"""JSON that people write, read so that nothing in it is decided in silence."""

from __future__ import annotations

import json
from typing import Any

MAX_DIGITS = 400  # of a number; no double has more


def load_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also for a key that is there twice, a number that no double holds,
    half a character, and nesting without end."""
    try:
        found = json.loads(
            text,
            object_pairs_hook=_to_object,
            parse_int=_to_int,
            parse_float=_to_float,
            parse_constant=_refuse_constant,
        )
        check_characters(found)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def check_characters(value: Any) -> None:
    """Raises ValueError for a text in the value that holds half of a surrogate pair, which no file can hold."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= one <= "\udfff" for one in value):
            raise ValueError(f"{value[:40]!a} holds half a character (a lone surrogate)")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_characters(key)
            check_characters(inner)
    elif isinstance(value, list):
        for inner in value:
            check_characters(inner)


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _to_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _to_float(digits: str) -> float:
    found = float(digits)
    if found in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:40]} is too large")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a value of JSON")
