"""A pattern as JavaScript reads it, and as RE2 does: where the two readings are the same, so is what they match.

JavaScript counts UTF-16 units, which `counts_units` looks for: that shows with characters such as emoji alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from stackctl.rules.cel.patterns import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_CLASSES = "dDwWsS"
_REPEAT = re.compile(r"[*+?]|\{([0-9]+)(?:(,)([0-9]*))?\}")
_GROUP = re.compile(r"\(\?(?::|(<?[=!])|P?<([A-Za-z_][A-Za-z0-9_]*)>|([imsU-]+)([:)]))")
_LAST_UNIT = 0xFFFF
_MANY_REPEATS = 10
MAX_TRIED = 500  # characters of a pattern that texts are tried on


class Piece(NamedTuple):
    """`kind`: literal, class (`value` as in `\\d`), set, range, any, open, close, or, edge, repeat, or what one of them
    has alone: back, octal, control, empty (JavaScript), flags, unicode, anchor, posix (RE2)."""

    kind: str
    value: str = ""
    items: tuple[Piece, ...] = ()
    most: int | None = None  # of a repeat, whose least is `value`


Pattern: TypeAlias = tuple[Piece, ...]


@lru_cache(maxsize=8192)
def read_pattern(pattern: str, *, javascript: bool) -> Pattern:
    """Its pieces. Raises ValueError for what JavaScript does not take; of RE2 only what it takes is read."""
    return _Reader(pattern, javascript=javascript).read()


@lru_cache(maxsize=8192)
def is_same_to_both(pattern: str, to_re2: str | None = None) -> bool:
    """Whether RE2 reads the pattern (or that one) as JavaScript reads this, and one unit is one character to it."""
    try:
        pieces = read_pattern(pattern, javascript=True)
        return pieces == read_pattern(pattern if to_re2 is None else to_re2, javascript=False) and not _halves(pieces)
    except ValueError:
        return False


def _halves(pieces: Pattern) -> bool:
    """Whether a repeat or a set is of one half of an emoji alone."""
    return any(
        _is_beyond(piece) and (piece.kind == "set" or following.kind == "repeat")
        for piece, following in zip(pieces, (*pieces[1:], Piece("end")), strict=True)
    )


def counts_units(pieces: Pattern) -> bool:
    """Whether an emoji is two where CEL sees one: in what is neither repeated at will nor spelled out."""
    for piece, following in zip(pieces, (*pieces[1:], Piece("end")), strict=True):
        wide = piece.kind == "any" or (piece.kind == "class" and piece.value in "DWS") or (
            piece.kind == "set" and (piece.value == "^" or any(item.value in ("D", "W", "S") for item in piece.items))
        )  # fmt: skip
        at_will = following.kind == "repeat" and following.most is None and following.value in ("0", "1")
        if wide and not at_will:
            return True
    return False


def has_nested_repeats(pattern: str) -> bool:
    """Whether an unbounded repeat holds another, as in (a+)+: a backtracking matcher may need exponential time."""
    try:
        pieces = read_pattern(pattern, javascript=True)
    except ValueError:
        return False
    holds = [False]  # for each open group: whether there is such a repeat in it
    closed = False  # the same of the group that ended last
    for before, piece in zip((Piece("open"), *pieces), pieces, strict=False):
        if piece.kind == "open":
            holds.append(False)
        elif piece.kind == "close":
            closed = holds.pop()
            holds[-1] |= closed
        elif piece.kind == "repeat" and (piece.most is None or piece.most - int(piece.value) > _MANY_REPEATS):
            if before.kind == "close" and closed:
                return True
            holds[-1] = True
    return False


def make_example(pattern: str) -> str | None:
    """A text that it matches, or None where none was found."""
    if len(pattern) > MAX_TRIED:
        return None
    try:
        text = _make_example(iter(read_pattern(pattern, javascript=False)))
        return text if compile_pattern(pattern)(text) else None
    except ValueError:
        return None


def _make_example(pieces: Iterator[Piece]) -> str:
    """Of the first alternative, up to the end of the group."""
    done: list[str] = []
    last = ""
    is_first = True
    for piece in pieces:
        match piece.kind:
            case "repeat":
                times = min(max(int(piece.value), 1), _MANY_REPEATS)
                last *= times if piece.most != 0 else 0
                continue
            case "open":
                following = _make_example(pieces)
            case "close":
                break
            case "or":
                if is_first:
                    done.append(last)
                is_first, following = False, ""
            case _:
                following = _make_member(piece)
        if is_first:
            done.append(last)
        last = following
    return "".join(done) + (last if is_first else "")


def _make_member(piece: Piece) -> str:
    match piece.kind:
        case "literal" | "range":
            return piece.value[0]
        case "any":
            return "a"
        case "class":
            return {"d": "5", "s": " ", "W": "-"}.get(piece.value, "a")
        case "set" if piece.value:
            taken = {_make_member(item) for item in piece.items}
            return next(one for one in "xqa5-.Z~" if one not in taken)
        case "set":
            return _make_member(piece.items[0])
        case _:
            return ""


def has_spaces(pieces: Pattern) -> bool:
    """Whether it has a `\\s`, which JavaScript takes for more characters than RE2."""
    return any(
        one.kind == "class" and one.value in "sS" for piece in pieces for one in (piece, *piece.items)
    )  # fmt: skip


def _is_beyond(piece: Piece) -> bool:
    return any(
        one.kind in ("literal", "range") and any(ord(character) > _LAST_UNIT for character in one.value)
        for one in (piece, *piece.items)
    )


class _Reader:
    def __init__(self, pattern: str, *, javascript: bool) -> None:
        self._text = pattern
        self._javascript = javascript
        self._at = 0
        self._found: list[Piece] = []
        self._groups = len(re.findall(r"(?<!\\)\((?!\?)|\(\?<(?![=!])", pattern))

    def read(self) -> Pattern:
        opened: list[bool] = []  # whether what closes there can be repeated
        while self._at < len(self._text):
            character = self._text[self._at]
            if repeat := self._match_repeat():
                self._repeat(repeat)
            elif character == "(":
                self._open(opened)
            elif character == ")":
                if not opened:
                    raise ValueError("unmatched )")
                self._add(Piece("close", "" if opened.pop() else "look"))
            elif character == "[":
                self._set()
            elif character == "\\":
                self._found.append(self._escape(within=False))
            else:
                kind = {"^": "edge", "$": "edge", "|": "or", ".": "any"}.get(character, "literal")
                self._add(Piece(kind, character))
        if opened:
            raise ValueError("missing )")
        return tuple(self._found)

    def _add(self, piece: Piece, length: int = 1) -> None:
        self._found.append(piece)
        self._at += length

    def _match_repeat(self) -> re.Match[str] | None:
        return _REPEAT.match(self._text, self._at)

    def _repeat(self, found: re.Match[str]) -> None:
        before = self._found[-1] if self._found else Piece("open")
        nothing = before.kind in ("open", "or", "repeat") or (
            self._javascript and (before.kind == "edge" or before == Piece("close", "look"))
        )
        if nothing:
            raise ValueError(f"nothing to repeat by {found[0]}")
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0], (0, 0))
        if found[1] is not None:
            least = int(found[1][:9])
            most = least if not found[2] else int(found[3][:9]) if found[3] else None
            if most is not None and most < least:
                raise ValueError(f"{found[0]} is out of order")
        self._add(Piece("repeat", str(least), most=most), len(found[0]))
        if self._text[self._at : self._at + 1] == "?":
            self._at += 1  # lazy: what matches is another part, whether anything matches is the same

    def _open(self, opened: list[bool]) -> None:
        found = _GROUP.match(self._text, self._at)
        if found is None and self._text.startswith("(?", self._at):
            raise ValueError(f"{self._text[self._at : self._at + 3]} is no kind of group")
        look, name, flags, end = found.groups() if found else (None, None, None, None)
        written = found[0] if found else "("
        if (self._javascript and (flags or written.startswith("(?P"))) or (look and not self._javascript):
            raise ValueError(f"{written} is no kind of group")
        if flags and end == ")":
            self._add(Piece("flags", flags), len(written))
            return
        self._add(Piece("open", look or flags or ("" if name else written[1:])), len(written))
        opened.append(not (look or "").startswith("<"))  # JavaScript repeats (?=…), and not (?<=…)

    def _set(self) -> None:
        start = self._at
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        items: list[Piece] = []
        first = True
        while True:
            if self._at >= len(self._text):
                raise ValueError("missing ]")
            character = self._text[self._at]
            if character == "]" and not (first and not self._javascript):
                break
            first = False
            if not self._javascript and (named := re.compile(r"\[:\^?[a-z]+:\]").match(self._text, self._at)):
                items.append(Piece("posix", named[0]))
                self._at = named.end()
                continue
            one = self._item()
            if self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                other = self._item()
                if one.kind == other.kind == "literal":
                    if one.value > other.value:
                        raise ValueError("range out of order")
                    items.append(Piece("range", one.value + other.value))
                else:
                    items += [one, Piece("literal", "-"), other]
            else:
                items.append(one)
        self._at += 1
        if self._javascript and not items:
            self._found.append(Piece("empty", self._text[start : self._at]))
            return
        self._found.append(Piece("set", "^" if negated else "", tuple(items)))

    def _item(self) -> Piece:
        if self._text[self._at] == "\\":
            return self._escape(within=True)
        self._at += 1
        return Piece("literal", self._text[self._at - 1])

    def _escape(self, *, within: bool) -> Piece:
        """What a backslash begins; it is passed."""
        rest = self._text[self._at + 1 : self._at + 12]
        if not rest:
            raise ValueError("\\ at the end")
        character = rest[0]
        self._at += 2
        if character in _CLASSES:
            return Piece("class", character)
        if character in _CONTROLS:
            return Piece("literal", _CONTROLS[character])
        if coded := re.match(r"x([0-9a-fA-F]{2})", rest):
            self._at += 2
            return Piece("literal", chr(int(coded[1], 16)))
        if character in "bB" and not within:
            return Piece("edge", character)
        octal = re.match(r"0(?![0-9])|[0-3][0-7]{2}", rest)
        if octal and (not self._javascript or octal[0][0] == "0" or int(octal[0]) > self._groups):
            self._at += len(octal[0]) - 1
            return Piece("literal", chr(int(octal[0], 8)))
        return self._escape_of_javascript(rest, within) if self._javascript else self._escape_of_re2(rest)

    def _escape_of_javascript(self, rest: str, within: bool) -> Piece:
        if coded := re.match(r"u([0-9a-fA-F]{4})", rest):
            self._at += 4
            return Piece("literal", chr(int(coded[1], 16)))
        if rest[0] == "b":
            return Piece("literal", "\b")
        if rest[0].isdecimal() or (rest[0] == "k" and re.search(r"\(\?<\w", self._text)):
            if rest[0] == "k" and not re.match(r"k<[A-Za-z_][A-Za-z0-9_]*>", rest):
                raise ValueError("\\k without a name")
            return Piece("back" if not within else "octal", rest[0])
        if rest[0] == "c":
            return Piece("control", rest[:2])
        return Piece("literal", rest[0])

    def _escape_of_re2(self, rest: str) -> Piece:
        if coded := re.match(r"x\{([0-9a-fA-F]{1,8})\}", rest):
            self._at += len(coded[0]) - 1
            return Piece("literal", chr(min(int(coded[1], 16), 0x10FFFF)))
        if rest[0] == "a":
            return Piece("literal", "\a")
        if rest[0] in "pP":
            return Piece("unicode", rest[:2])
        if rest[0] in "AzCQEG" or rest[0].isalnum():
            return Piece("anchor", rest[0])
        return Piece("literal", rest[0])
