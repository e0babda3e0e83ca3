"""Findings as annotations: what GitHub Actions shows at the lines of a pull request."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from stackctl.core.sentences import escape_unprintable

Level = Literal["error", "warning", "notice"]


def format_annotation(
    level: Level,
    text: str,
    *,
    file: Path,
    line: int,
    title: str,
    column: int | None = None,
    safe_way: str | None = None,
) -> str:
    """One workflow command on a line of its own, whatever the values hold; places count from 1."""
    where = {"file": format_path(file), "line": line} | ({} if column is None else {"col": column}) | {"title": title}
    properties = ",".join(f"{key}={_escape(str(value), in_property=True)}" for key, value in where.items())
    message = f"{text}\nsafe way:\n{safe_way}" if safe_way else text
    return f"::{level} {properties}::{_escape(message)}\n"


def format_path(path: Path) -> str:
    """Relative to the working directory where it lies below it: what editors and GitHub link to."""
    return _relate(path, Path.cwd())


@lru_cache
def _relate(path: Path, here: Path) -> str:
    absolute, here = Path(os.path.realpath(path)), here.resolve()  # of links that lead in a circle, too
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def _escape(text: str, *, in_property: bool = False) -> str:
    text = escape_unprintable(text, keep="\t\r\n")
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, code)
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text
