"""What strangers write: everything that a terminal, a runner, rich or a reader could be fooled by, and secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Titles, colours (7 and 8 bit), a link, the clipboard, a bell, forged lines, turned and invisible text.
EVIL = (
    "A\x1b]0;t\x07\x1b[31m\x9b31m\x1b]8;;http://e\x1b\\\x1b]52;c;ZQ==\x07\r\nerror: forged\n::error::forged\n"
    "##[error]forged\u2028b\u202ec\u2066d\u200be\ufefff[red]markup[/red] :boom: 😀\tZ"
)
MARK = "Zq7Xv"  # in every secret
SECRETS = (
    f"sk_live_{MARK}4eC39HqLyjW rk_test_{MARK}4eC39HqLyjW whsec_{MARK}4eC39HqLyjW postgresql://u:{MARK}pw@h/d"
    f" 123456789:{MARK}{'a' * 30} "
)

# What a terminal obeys, but for the end of a line; and what turns, hides or ends text without being seen.
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_FORGED = re.compile(r"^(?:(?:error|hint|warning): forged|\s*::[a-z-]+)|##\[", re.MULTILINE)


def find_faults(text: str, *, tabs: bool = False, secrets: bool = True, markup: bool = True) -> list[str]:
    """What an output must not hold, and what of a value it shows otherwise than it was written."""
    faults = [
        f"obeyed {one!r} in {_around(text, at)}" for one, at in _find(_OBEYED, text) if not (tabs and one == "\t")
    ]
    faults += [f"forged {one!r} in {_around(text, at)}" for one, at in _find(_FORGED, text)]
    faults += [f"secret in {_around(text, at)}" for _, at in _find(re.compile(MARK), text) if secrets]
    whole = text.count("[red]markup[/red] :boom: 😀")
    if markup and whole != text.count("markup"):
        faults.append(f"markup or emoji changed: {_around(text, text.find('markup'))}")
    return faults


def find_texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names included."""
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield name
                yield from find_texts(inner)
        case list():
            for inner in value:
                yield from find_texts(inner)
        case _:
            pass


def _find(pattern: re.Pattern[str], text: str) -> list[tuple[str, int]]:
    return [(found[0], found.start()) for found in pattern.finditer(text)]


def _around(text: str, at: int) -> str:
    return repr(text[max(at - 60, 0) : at + 60])
