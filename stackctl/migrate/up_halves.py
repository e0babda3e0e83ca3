"""Files of other tools, which hold the way up and the way down: the up half, and never the other.

The marks are those of the documentation of dbmate, goose, sql-migrate, node-pg-migrate and tern. golang-migrate and
others keep the halves in two files, `x.up.sql` and `x.down.sql`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.core.errors import ConfigError
    from stackctl.postgres.lexer import Token

PAIRS = "up/down pairs"
UP, DOWN = ".up", ".down"  # what the names of a pair end with, before `.sql`

_MARKS = {
    "dbmate": re.compile(r"--\s*migrate:(?P<half>up|down)\b(?P<options>.*)", re.IGNORECASE),
    "goose": re.compile(r"--\s*\+goose\s+(?:(?P<half>up|down)|(?P<options>no\s+transaction|envsub\s+on))\s*", re.I),
    "sql-migrate": re.compile(r"--\s*\+migrate\s+(?P<half>up|down)\b(?P<options>.*)", re.IGNORECASE),
    "node-pg-migrate": re.compile(r"--\s*(?P<half>up|down)\s+migration\b(?P<options>.*)", re.IGNORECASE),
    "tern": re.compile(r"-{2,}\s*create\s+above\s*/\s*(?P<half>drop)\s+below\s*(?P<options>)-*\s*", re.IGNORECASE),
}
_OUTSIDE = re.compile(r"\s*transaction:false|no\s*transaction", re.IGNORECASE)
# What a person writes over a way down that no tool here would leave out.
_LIKE_DOWN = re.compile(r"--[\W_]*(?:migrat(?:e|ion)\W*)?(?:down|rollback|revert|undo)(?:\W*migration)?[\W_]*", re.I)


@dataclass(frozen=True)
class UpHalf:
    """The tokens that are to run. `tool`: whose format the file is in, empty for ours."""

    tokens: Sequence[Token]
    tool: str = ""
    outside_transaction: bool = False


def find_tool(text: str) -> str:
    """Whose marks a text has; empty for none."""
    return next((found[0] for line in text.splitlines() if (found := _read_mark(line.strip()))), "")


def take_up_half(text: str, tokens: Sequence[Token], make_error: Callable[[str, int], ConfigError]) -> UpHalf:
    """Leave the way down out. Raises what `make_error` makes of a text and a place where that is ambiguous."""
    marks = [
        (place, *found)
        for place, token in enumerate(tokens)
        if token.kind == "comment"
        and (found := _read_mark(token.text))
        and not text[text.rfind("\n", 0, token.start) + 1 : token.start].strip()
    ]
    if not marks:
        _refuse_unmarked(tokens, make_error)
        return UpHalf(tokens)
    tool = marks[0][1]
    for place, other, match in marks:
        if other != tool:
            raise make_error(f"marks of {tool} and of {other} in one file", tokens[place].start)
        if (match["options"] or "").lower().startswith("envsub"):
            raise make_error("goose would fill in variables of the environment", tokens[place].start)
    halves = [(place, match["half"].lower()) for place, _, match in marks if match["half"]]
    up: list[Token] = []
    if tool == "tern":
        up = list(tokens[: halves[0][0]])
    else:
        first = halves[0][0] if halves else len(tokens)
        stray = next((token for token in tokens[:first] if token.kind != "comment"), None)
        if stray is not None or "up" not in {half for _, half in halves}:
            at = stray.start if stray is not None else tokens[marks[0][0]].start
            raise make_error(f"{tool} runs what stands behind its mark for up, and this does not", at)
        for (place, half), (end, _) in zip(halves, [*halves[1:], (len(tokens), "")], strict=True):
            up += tokens[place + 1 : end] if half == "up" else ()
    return UpHalf(up, tool, any(_OUTSIDE.search(match["options"] or "") for _, _, match in marks))


def take_down_half(text: str, tokens: Sequence[Token]) -> tuple[str, bool]:
    """The text of the way down, and whether it is to run outside a transaction; for what `take_up_half` has passed."""
    marks = [(token, found) for token in tokens if (found := _read_mark(token.text))]
    down: list[str] = []
    for place, (token, (_, match)) in enumerate(marks):
        if (match["half"] or "").lower() in ("down", "drop"):
            end = next((later.start for later, (_, other) in marks[place + 1 :] if other["half"]), len(text))
            inner = [later for later, _ in marks[place + 1 :] if later.start < end]
            down.append(text[(inner[-1] if inner else token).end : end].strip())
    outside = any(_OUTSIDE.search(match["options"] or "") for _, (_, match) in marks)
    return "\n\n".join(part for part in down if part), outside


def _read_mark(text: str) -> tuple[str, re.Match[str]] | None:
    if not text.startswith("--"):
        return None
    return next(((tool, match) for tool, mark in _MARKS.items() if (match := mark.fullmatch(text.rstrip()))), None)


def _refuse_unmarked(tokens: Sequence[Token], make_error: Callable[[str, int], ConfigError]) -> None:
    places = [place for place, token in enumerate(tokens) if token.kind != "comment"]
    for place, token in enumerate(tokens):
        if token.kind == "comment" and _LIKE_DOWN.fullmatch(token.text) and places and places[0] < place < places[-1]:
            raise make_error(f"`{token.text}` reads like the beginning of a way down, which would run too", token.start)
