from __future__ import annotations

import re
from pathlib import Path

import pytest

from stackctl import sql

FILES = sorted(path.stem for path in Path(sql.__file__).parent.glob("*.sql"))


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_nothing_but_named_statements(file: str) -> None:
    text = (Path(sql.__file__).parent / f"{file}.sql").read_text(encoding="utf-8")
    named = re.findall(r"^-- name: (\w+)", text, re.MULTILINE)
    blocks = sql.statements(file)
    assert list(blocks) == named, "two blocks share a name, or a header is misspelt"
    assert named
    assert all(blocks.values()), "an empty statement"
    before = text.split("-- name:", 1)[0]
    assert all(line.startswith("--") or not line.strip() for line in before.splitlines()), "SQL that nothing can reach"


def test_a_name_is_used_somewhere() -> None:
    """A statement that no module asks for is dead."""
    package = Path(sql.__file__).parent.parent
    sources = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    unused = [f"{file}.{name}" for file in FILES for name in sql.statements(file) if f'"{name}"' not in sources]
    assert unused == []


def test_an_unknown_file_is_an_error_not_an_empty_set() -> None:
    with pytest.raises(FileNotFoundError):
        sql.statements("no_such_file")
