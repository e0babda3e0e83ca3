"""docs/architecture.md names files and functions; each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import stackctl

PACKAGE = Path(stackctl.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
NAMED = sorted(set(re.findall(r"`((?:\w+/)+\w+\.(?:py|sql)|\w+\.py)(?::([\w.]+))?`", PAGE.read_text(encoding="utf-8"))))


def defined(path: Path) -> set[str]:
    """Functions, classes and methods of a module, as `name` and `Class.method`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_the_page_is_read() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_is_named_exists(file: str, name: str) -> None:
    places = [PACKAGE / file, PACKAGE.parent / file, *(PACKAGE.rglob(file) if "/" not in file else [])]
    path = next((place for place in places if place.is_file()), None)
    assert path is not None, f"there is no {file}"
    assert not name or name in defined(path), f"{file} has no {name}"
