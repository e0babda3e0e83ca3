"""Text in lines that fit a window."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# What is to be copied as a whole is a word: a command in back quotes, with what touches it.
_WORD = re.compile(r" *(?:`[^`]*`|[^ ])+")


def fold_sentence(text: str, width: int, hang: int = 2) -> list[str]:
    """A line in lines of that many cells, cut between words, all but the first set in by `hang` and the text's margin.

    A path or a command that is longer begins a line, and stays whole: a terminal that breaks it copies it as one.
    """
    if 2 * len(text) <= width:  # no sign takes more
        return [text]
    measure = find_measure([text])
    if measure(text) <= width:
        return [text]
    margin = " " * min(len(text) - len(text.lstrip(" ")) + hang, width // 2)
    lines: list[str] = []
    line = ""
    for word in _WORD.findall(text):
        if line and measure(line) + measure(word) > width:
            lines.append(line)
            line = margin + word.lstrip(" ")
        else:
            line += word
    return [*lines, line]


def fold_cell(text: str, width: int, measure: Callable[[str], int]) -> list[str]:
    """A text in lines of that many cells, cut between words, and within those that are longer than a line."""
    if measure(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and measure(line) + 1 + measure(word) <= width:
            line += f" {word}"
            continue
        lines += [line] if line else []
        line = word
        while measure(line) > width:
            end = next(end for end in range(len(line), 0, -1) if end == 1 or measure(line[:end]) <= width)
            lines.append(line[:end])
            line = line[end:]
    return [*lines, line] if line else lines


def find_measure(texts: Iterable[str]) -> Callable[[str], int]:
    """How many cells of a terminal each of these takes."""
    if all(map(str.isascii, texts)):
        return len
    from rich.cells import cell_len

    return cell_len
