"""`-- stackctl:allow RULE reason`: comments that let a finding pass."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALLOW = re.compile(r"--\s*stackctl:allow(?:\s+(\S+))?\s*(.*)")


@dataclass(frozen=True)
class AllowComment:
    """One comment. `statement`: the number of the one it is about, from 0; None where no statement follows."""

    rule: str
    reason: str
    at: int
    statement: int | None


def parse_allow_comments(text: str, spans: Sequence[tuple[int, int]]) -> list[AllowComment]:
    """The comments in a file whose statements begin and end at these offsets.

    A comment is about the statement it stands in or before; behind a statement on the same line, about that one.
    """
    found: list[AllowComment] = []
    for token in lexer.tokenize(text):
        match = _ALLOW.fullmatch(token.text) if token.kind == "comment" else None
        if match is not None:
            found.append(
                AllowComment(match[1] or "", match[2].strip(), token.start, _find_statement(text, token.start, spans))
            )
    return found


def _find_statement(text: str, at: int, spans: Sequence[tuple[int, int]]) -> int | None:
    for number, (_, end) in enumerate(spans):
        if end <= at and "\n" not in text[end:at]:
            following = spans[number + 1][0] if number + 1 < len(spans) else len(text)
            if at < following:
                return number
        if at < end:
            return number
    return None
