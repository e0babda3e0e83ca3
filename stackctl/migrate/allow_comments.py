"""`-- stackctl:allow RULE reason`: comments that let a finding pass."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Sequence

# What `migrate check` alone finds, and a comment may let pass: it sees what was and what is.
CHECK_ALONE = frozenset(("drop-enum-value", "constraint-changed", "fails-on-rows"))
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
    if "stackctl:allow" not in text:
        return found
    ends = [end for _, end in spans]
    for token in lexer.tokenize(text, script=True):
        match = _ALLOW.fullmatch(token.text) if token.kind == "comment" else None
        if match is not None:
            number = bisect_right(ends, token.start)
            following = spans[number][0] if number < len(spans) else len(text)
            if number and token.start < following and "\n" not in text[ends[number - 1] : token.start]:
                number -= 1
            statement = number if number < len(spans) else None
            found.append(AllowComment(match[1] or "", match[2].strip(), token.start, statement))
    return found
