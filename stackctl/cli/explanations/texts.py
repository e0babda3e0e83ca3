"""What the codes of errors mean, why they come and what to do: the texts of `stackctl explain` and docs/errors.md.

The texts are the Markdown files beside this module, one a room. In each, a heading `### code` is followed by "Exit code
N." (or "Finding of `command`.") and one sentence, by a paragraph that begins **Why:** and by one that begins **What to
do:**, behind which commands are set in. After a change, `python -m stackctl.cli.explanations.texts` writes
docs/errors.md anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOMS = ("general", "configuration", "databases", "migrations", "pipeline", "rules", "payments", "findings")
PAGE = Path("docs", "errors.md")
_FOLDER = Path(__file__).parent
_INTRODUCTION = """\
# Errors

Every error has a code, which scripts find under `error.code` of `--json` and which never changes its meaning.
`stackctl explain CODE` prints what stands here for one, `stackctl explain` lists them all. It explains what the checks
find, too: [below](#what-the-checks-find), and the rules of [`migrate lint`](lint.md#rules) and
[`migrate check`](migration-check.md#what-it-finds).

<!-- Written by `python -m stackctl.cli.explanations.texts` from the files beside that module. -->
"""


@dataclass(frozen=True)
class Explanation:
    """One code of an error, or a finding of the command `found_by`, whose exit code is 1.

    `fix` may have several paragraphs; its commands are lines set in by four blanks.
    """

    code: str
    room: str
    exit_codes: tuple[int, ...]
    found_by: str | None
    meaning: str
    why: str
    fix: str

    @property
    def commands(self) -> list[str]:
        """The commands to copy."""
        return [line.strip() for line in self.fix.splitlines() if line.startswith("    ")]


_HEAD = re.compile(r"(?:Exit code ((?:\d+(?:, | or )?)+)|Finding of `(.*?)`)\. (.*)", re.DOTALL)


def read_explanations() -> Iterator[Explanation]:
    """All of them, room by room, in the order of the files."""
    for name in ROOMS:
        head, *sections = _read_room(name).split("\n### ")
        room = head.splitlines()[0].removeprefix("## ")
        for section in sections:
            code, _, text = section.partition("\n")
            meaning, _, rest = text.partition("\n\n**Why:** ")
            why, _, fix = rest.partition("\n\n**What to do:** ")
            found = _HEAD.fullmatch(meaning.strip())
            assert found is not None and why and fix, f"{name}.md: {code} is not written as the others are"
            exit_codes = tuple(map(int, re.findall(r"\d+", found[1] or "1")))
            yield Explanation(code, room, exit_codes, found[2], _join(found[3]), _join(why), fix.strip())


def _join(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _read_room(name: str) -> str:
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8")


def compose_page() -> str:
    """The text of docs/errors.md."""
    return "\n".join([_INTRODUCTION, *map(_read_room, ROOMS)])


if __name__ == "__main__":
    PAGE.write_text(compose_page(), encoding="utf-8")
