"""Values of anybody's as text that a terminal shows and does not obey, in the signs that a stream's encoding has."""

from __future__ import annotations

import re
from functools import cache

from stackctl.core.redaction import mask_shapes

# What a runner of GitHub Actions obeys: `::command::` where a line begins, `##[command]` anywhere.
_WORKFLOW_COMMAND = re.compile(r"^(\s*):(?=:[A-Za-z-]+(?: |::))|#(?=#\[)")
# Letters and signs that show nothing, and pass for printable.
_FILLERS = re.compile("[\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]")
# What our own sentences and drawings hold beyond ASCII.
_IN_ASCII = {"…": "...", "→": "->", "─": "-", "│": "|", "├": "|", "└": "`", "–": "-", "·": "-", "×": "x", "✓": "+"}


def escape_unprintable(text: str, keep: str = "") -> str:
    """Text without what a terminal would obey, what ends a line, what turns its direction, and what is not seen."""
    if text.isprintable() and not _FILLERS.search(text):
        return text
    return "".join(
        one if (one.isprintable() and not _FILLERS.match(one)) or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )


def to_sentence(text: str, *, exact: bool = False) -> str:
    """One line, safe to be shown; `exact`: a document's, whose tabs stay and in which nothing is masked."""
    shown = escape_unprintable(text, keep="\t") if exact else escape_unprintable(mask_shapes(text))
    return _WORKFLOW_COMMAND.sub(lambda found: f"{found[1] or ''}\\x{ord(found[0][-1]):02x}", shown)


def to_encodable(text: str, encoding: str) -> str:
    """The text with signs of typography spelled in ASCII, and all else as escapes, where the encoding lacks them."""
    if text.isascii():
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        pass
    else:
        return text
    spelled = "".join(one if one not in _IN_ASCII or _has(encoding, one) else _IN_ASCII[one] for one in text)
    return spelled.encode(encoding, "backslashreplace").decode(encoding)


@cache
def _has(encoding: str, sign: str) -> bool:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def format_count(number: int, one: str, many: str) -> str:
    """`1 row`, `2 rows`, `1,000 rows`."""
    return f"{number:,} {one if number == 1 else many}"
