"""The .sql files: nothing but named statements, each of which somebody runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stackctl
from stackctl.postgres.statements import load_statements

PACKAGE = Path(stackctl.__file__).parent
# The demo's migrations are files of its folder.
FILES = sorted(path for path in PACKAGE.rglob("*.sql") if "demo_folder" not in path.parts)


def test_there_are_files_to_check() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_file_is_nothing_but_named_statements(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    named = re.findall(r"^-- name: (\w+)", text, re.MULTILINE)
    blocks = load_statements(str(file))
    assert list(blocks) == named, "two blocks share a name, or a header is misspelt"
    assert named
    assert all(blocks.values()), "an empty statement"
    before = text.split("-- name:", 1)[0]
    assert all(line.startswith("--") or not line.strip() for line in before.splitlines()), "SQL that nothing can reach"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_statement_is_used_in_its_room(file: Path) -> None:
    """A statement that no module of the room asks for is dead."""
    room = PACKAGE / file.relative_to(PACKAGE).parts[0]
    sources = "\n".join(path.read_text(encoding="utf-8") for path in room.rglob("*.py"))
    assert [name for name in load_statements(str(file)) if f'"{name}"' not in sources] == []


def test_a_module_without_a_file_is_an_error_not_an_empty_set() -> None:
    with pytest.raises(FileNotFoundError):
        load_statements(str(PACKAGE / "no_such_module.py"))


# Of a session rather than of a transaction: behind a pooler it would stay with others, or be lost. Migrations refuse
# such poolers, and the target asks whether the session is its own.
OF_A_SESSION = re.compile(
    r"\A(SET (?!LOCAL|TRANSACTION)|LISTEN|PREPARE)|pg_(try_)?advisory_lock\(|WITH HOLD|set_config\([^()]*, *false\)",
    re.IGNORECASE,
)
OWN_SESSIONS = {"notice_lost_client"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_statement_leaves_anything_in_a_session(file: Path) -> None:
    if "migrate" in file.parts:
        return
    for name, text in load_statements(str(file)).items():
        code = re.sub(r"^\s*--.*\n", "", text, flags=re.MULTILINE)
        assert (OF_A_SESSION.search(code) is None) == (name not in OWN_SESSIONS), f"{name}: {code}"
