"""The difference of two texts, exactly: a patch that can be applied."""

from __future__ import annotations

import difflib
import re

from stackctl.core.sentences import escape_unprintable

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_NO_NEWLINE = "\n\\ No newline at end of file\n"


def diff_texts(before: str, after: str, name: str) -> str:
    """A unified diff with a line of context and without the last line break; empty when there is no difference."""
    # Of what else ends a line for Python, nothing does in a file; `\r` stays with its line.
    one, other = _LINES.findall(before), _LINES.findall(after)
    name = escape_unprintable(name)  # no part of the document, and one line
    lines = difflib.unified_diff(one, other, name, name, n=1)
    return "".join(line if line.endswith("\n") else line + _NO_NEWLINE for line in lines).removesuffix("\n")
