"""Named SQL statements: one .sql file per module that runs them, blocks opened by `-- name: <identifier>`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

_BLOCK = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


@cache
def statements(file: str) -> dict[str, LiteralString]:
    """The statements of `<file>.sql` by name.

    They count as literals: the text is part of the installed package and never holds a value.
    """
    parts = _BLOCK.split((Path(__file__).parent / f"{file}.sql").read_text(encoding="utf-8"))
    return {name: cast("LiteralString", text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
