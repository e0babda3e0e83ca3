"""Plain words: what people read (help, messages, errors, explanations, docs) has none of those that were riddles."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import stackctl

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(stackctl.__file__).parent
ROOT = PACKAGE.parent
# Each with what to write instead.
BAD = {
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\bnothing of this transaction\b": "the transaction was rolled back; nothing was changed",
    r"[a-z]\((s|es|ies)\)(?!\w)": "one word for one, another for many: format_count",
    r"\bbuil[dt] anew\b|\bwritten anew\b": "rebuild, rewrite",
    r"\bthere is but one\b": "there is only one",
    r"\bnobody can be asked\b": "there is no terminal to ask on",
    r"\bwork off\b": "process",
    r"\bby somebody else meanwhile\b": "by someone else in the meantime",
    r"\bis no (name|commit|path|member) (of|in)\b": "is not a …",
    r"\btake the change back\b": "revert the change",
    r"\bexclude each other\b": "can't be used together",
}


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the package's code, with its place: messages, help, and docstrings of commands among them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *PACKAGE.rglob("*.md")]
    for path in pages:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def test_no_text_has_a_word_that_people_stumble_over() -> None:
    found = [
        f"{place}: {match[0]!r}; write: {better}"
        for place, text in texts()
        for pattern, better in BAD.items()
        if (match := re.search(pattern, " ".join(text.split()), re.IGNORECASE))
    ]
    assert found == []
