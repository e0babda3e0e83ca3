"""Named SQL statements: a .sql file beside the module that runs them, blocks opened by `-- name: <identifier>`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

_BLOCK = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


@cache
def load_statements(module: str, name: str | None = None) -> dict[str, LiteralString]:
    """The statements, by name, of the .sql file beside `module` (its `__file__`): its namesake, or `name`.

    They count as literals: the text is part of the installed package and never holds a value.
    """
    file = Path(module).with_name(f"{name}.sql") if name else Path(module).with_suffix(".sql")
    parts = _BLOCK.split(file.read_text(encoding="utf-8"))
    return {name: cast("LiteralString", text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
