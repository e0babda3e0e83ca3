"""A difference of texts is a patch that makes the one of the other, however long they are."""

from __future__ import annotations

import random
import re

from stackctl.core.text_diff import diff_texts
from tests.growth import LINEAR, growth


def apply(before: list[str], patch: list[str]) -> list[str]:
    found: list[str] = []
    at = 0
    for line in patch:
        if place := re.match(r"@@ -(\d+)(,0)?", line):
            start = int(place[1]) - (place[2] is None)
            found += before[at:start]
            at = start
        elif line[0] != "+":
            assert before[at] == line[1:]
            at += 1
        if line[0] in " +":
            found.append(line[1:])
    return found + before[at:]


def test_a_difference_applied_to_the_one_is_the_other() -> None:
    chance = random.Random(3)
    for _ in range(500):
        letters = "abcdefghijklmnop"[: chance.randrange(1, 17)]
        one, other = (chance.choices(letters, k=chance.randrange(12)) for _ in range(2))
        if chance.random() < 0.5:
            other = [letter for letter in one if chance.random() < 0.8]
        before, after = ("".join(f"{letter}\n" for letter in some) for some in (one, other))
        patch = diff_texts(before, after, "name").splitlines()
        assert apply(one, patch[2:]) == other
        assert bool(patch) == (one != other)


def test_texts_that_differ_everywhere_are_compared_in_linear_time() -> None:
    def compare(size: int) -> None:
        before = "".join(f"{number}:\n  priority: {number}\n  type: log\n" for number in range(size))
        diff_texts(before, re.sub("priority: ", "priority: 1", before), "name")

    assert growth(compare, 300) < LINEAR
