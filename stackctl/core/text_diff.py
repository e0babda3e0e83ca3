"""The difference of two texts, exactly: a patch that can be applied."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from stackctl.core.sentences import escape_unprintable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_NO_NEWLINE = "\n\\ No newline at end of file\n"


def diff_texts(before: str, after: str, name: str) -> str:
    """A unified diff with a line of context and without the last line break; empty when there is no difference."""
    # Of what else ends a line for Python, nothing does in a file; `\r` stays with its line.
    one, other = _LINES.findall(before), _LINES.findall(after)
    lines = list(_diff_lines(one, other))
    if not lines:
        return ""
    name = escape_unprintable(name)  # no part of the document, and one line
    lines = [f"--- {name}\n", f"+++ {name}\n", *lines]
    return "".join(line if line.endswith("\n") else line + _NO_NEWLINE for line in lines).removesuffix("\n")


def _diff_lines(one: Sequence[str], other: Sequence[str]) -> Iterator[str]:
    for group in _Matcher(one, other).get_grouped_opcodes(1):
        first, last = group[0], group[-1]
        yield f"@@ -{_to_range(first[1], last[2])} +{_to_range(first[3], last[4])} @@\n"
        for tag, start, end, other_start, other_end in group:
            if tag == "equal":
                yield from (" " + line for line in one[start:end])
            else:
                yield from ("-" + line for line in one[start:end])
                yield from ("+" + line for line in other[other_start:other_end])


def _to_range(start: int, end: int) -> str:
    """As patches have it: an empty one begins at the line before."""
    length = end - start
    return f"{start + 1}" if length == 1 else f"{start + (length > 0)},{length}"


class _Matcher(difflib.SequenceMatcher[str]):
    """Matches what lies between lines that are there once in both texts: of all at once, the time is quadratic."""

    def __init__(self, one: Sequence[str], other: Sequence[str]) -> None:
        self._one, self._other = one, other
        super().__init__(None, one, other)

    def get_matching_blocks(self) -> list[difflib.Match]:
        blocks: list[list[int]] = []
        at, other_at = 0, 0
        for place, other_place in [*_find_anchors(self._one, self._other), (len(self._one), len(self._other))]:
            inner = [difflib.Match(place - at, other_place - other_at, 1)]
            if inner[0][:2] != (0, 0):
                between = self._one[at:place], self._other[other_at:other_place]
                inner = [*difflib.SequenceMatcher(None, *between).get_matching_blocks()[:-1], *inner]
            for a, b, size in inner:
                if blocks and blocks[-1][0] + blocks[-1][2] == at + a and blocks[-1][1] + blocks[-1][2] == other_at + b:
                    blocks[-1][2] += size
                else:
                    blocks.append([at + a, other_at + b, size])
            at, other_at = place + 1, other_place + 1
        blocks[-1][2] -= 1  # the end of both, which is no line
        end = [] if blocks[-1][2] == 0 else [difflib.Match(len(self._one), len(self._other), 0)]
        return [*(difflib.Match(*block) for block in blocks), *end]


def _find_anchors(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]]:
    """The places of lines that are there once in both, as many as stand in the same order in both."""
    counts, other_counts = Counter(one), Counter(other)
    places = {line: place for place, line in enumerate(other) if other_counts[line] == 1}
    pairs = [(place, places[line]) for place, line in enumerate(one) if counts[line] == 1 and line in places]
    ends: list[int] = []  # for each length, the least place in the other text that such a choice ends at
    chosen: list[int] = []
    before: list[int] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        before.append(chosen[length - 1] if length else -1)
        ends[length : length + 1] = [place]
        chosen[length : length + 1] = [number]
    found: list[tuple[int, int]] = []
    number = chosen[-1] if chosen else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]
