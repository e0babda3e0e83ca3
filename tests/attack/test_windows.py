"""Every command in narrow windows, on plain terminals, into other encodings, and to a disk that is full."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from tests.attack.test_output import CASES, Attack, Case, build, terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.attack.world import World
    from tests.conftest import Databases

# No letter of it is ASCII: some are in no, one or two of the encodings below, some take two cells of a terminal.
PLAIN = "Éßü – 日本 → Ω"
WINDOWS = {"20": (20, 10), "40": (40, 10), "79": (79, 10), "dumb": (80, 24)}  # columns, lines
STREAMS = ("ascii", "latin-1", "cp1252", "full", "forced")
SPOKEN = "import sys; [one.reconfigure(encoding={!r}) for one in (sys.stdout, sys.stderr)]"

# What is never folded: a word, of which a command in back quotes is one, and a line of a JSON document.
_WHOLE = re.compile(r" *(?:`[^`]*`|[^ ])+$| *\"\w+\": ")
_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_BEGUN_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]*")


def _spread(variants: Sequence[str], every: int = 1) -> list[object]:
    """Each case (of the short form, `every` so many) with one of them, in turn; with the others, and where it changes
    the database, in the long form.
    """
    return [
        pytest.param(case, variant, id=f"{case.line}-{variant}",
                     marks=[pytest.mark.long] if case.changes is True or number % every
                     or (number // every - place) % len(variants) else [])
        for number, case in enumerate(CASES) for place, variant in enumerate(variants)
    ]  # fmt: skip


@pytest.fixture(scope="session")
def plain(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield from build(PLAIN, databases, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("case", "window"), _spread(list(WINDOWS)))
def test_what_a_window_shows_fits_it(
    case: Case, window: str, plain: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    environ = {"TERM": "dumb"} if window == "dumb" else {"TERM": "xterm-256color", "NO_COLOR": "1"}
    columns, lines = WINDOWS[window]
    with terminal(columns, lines) as (stream, shown):
        Attack(case, plain, tmp_path).run(environ=environ, stdout=stream, stderr=stream)
    text = b"".join(shown).decode()
    assert "\x1b" not in text
    assert "Traceback" not in text
    if case.prints == "text" and case.documents != "none":
        written = text.replace("\r", "").splitlines()
        assert [one for one in written if cell_len(one) > columns and not _WHOLE.match(one)] == []
        assert [one for one in written if set(one) == {"─"} and len(one) > columns] == []
        assert [one for one in written for found in _BEGUN_ID.findall(one) if not _ID.match(found)] == []


@pytest.mark.parametrize(("case", "stream"), _spread(STREAMS, 2))
def test_no_stream_ends_a_command(case: Case, stream: str, plain: World, tmp_path: Path) -> None:
    attack = Attack(case, plain, tmp_path)
    if stream == "full":
        with Path("/dev/full").open("w") as full:
            done = attack.run(stdout=full, or_code=1)
        unwritten = "the result can't be written: No space left on device" in done.stderr
        assert unwritten or done.returncode != 1 or case.code == 1
        return
    if stream == "forced":
        forced = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "GITHUB_ACTIONS": "1", "TERM": "xterm-256color"}
        done = attack.run(environ=forced | {"NO_COLOR": ""})
        assert "\x1b" not in done.stdout + done.stderr
        return
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        attack.run(before=SPOKEN.format(stream), stdout=stdout, stderr=stderr)
    assert "Traceback" not in err.read_text(encoding=stream)
    if case.prints == "text":  # documents are UTF-8 wherever they go
        out.read_text(encoding=stream)
