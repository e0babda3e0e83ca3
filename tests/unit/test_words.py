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
LINE = "\n"
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
    # One word for one thing: a mapping's rows in an external database are its copy; what they are made of, its source.
    r"\btarget (databases?|tables?|rows?|columns?)\b|\bdestination\b|\bdownstream\b": "external database, copy",
    r"\b(copies|the table) outside[^-]": "copies, the table in the external database",
    r"\brefused rows?\b": "rejected row",
}
MEND = re.compile(r"(?<![a-z])mend(s|ed|ing)?(?![a-z])", re.IGNORECASE)


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
    places, lines = zip(*((place, " ".join(text.split())) for place, text in texts()), strict=True)
    whole = LINE.join(lines)  # one search for each pattern, not one for each text
    found = [
        f"{places[whole.count(LINE, 0, match.start())]}: {match[0]!r}; write: {better}"
        for pattern, better in BAD.items()
        for match in re.finditer(pattern, whole, re.IGNORECASE)
    ]
    assert found == []


def test_comments_and_names_say_fix_and_repair() -> None:
    files = [path for folder in ("stackctl", "tests", "bench") for path in (ROOT / folder).rglob("*")]
    files += [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        if path.suffix in (".py", ".sql", ".md") and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MEND.search(line)
    ]
    assert found == []


# A number that is counted, beside a noun that stays plural: "1 rows".
LARGE = ("users.py", "demo_tour.py", "repeated_passes.py", "squash.py", "check.py")  # what they count is never one
COUNTED = re.compile(
    r"\{(?:len\([^{}]*\)|[a-z_.]+(?::,)?)\} (?:more |[a-z]+ed )?"
    r"(?:rows|attempts|databases|tests|files|migrations|users|rules|seconds|minutes|hours|differences)\b"
)


def test_what_is_counted_is_one_or_many() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}; write: format_count"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in LARGE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in COUNTED.finditer(line)
    ]
    assert found == []
