from __future__ import annotations

import io
import json
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from rich.console import Console as RichConsole

from stackctl.core import console, redaction
from stackctl.core.console import Console, Exact, to_json
from stackctl.core.errors import ServiceError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, io.StringIO]:
    monkeypatch.setattr(redaction, "_secrets", set())
    return io.StringIO(), io.StringIO()


def test_json_forms() -> None:
    document = {
        "t": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        "naive": datetime(2026, 1, 2),
        "d": date(2026, 1, 2),
        "id": UUID(int=1),
        "n": Decimal("1.50"),
        "p": Path("/x"),
    }
    assert json.loads(to_json(document)) == {
        "t": "2026-01-02T01:04:05Z",
        "naive": "2026-01-02T00:00:00Z",
        "d": "2026-01-02",
        "id": "00000000-0000-0000-0000-000000000001",
        "n": "1.50",
        "p": "/x",
    }
    with pytest.raises(TypeError):
        to_json({"x": object()})


def test_an_error_off_json_says_nothing_on_stdout(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    Console(stdout=out, stderr=err).error(ServiceError("it is down", code="unreachable", hint="start it"))
    assert out.getvalue() == ""
    assert err.getvalue() == "error: it is down\nhint: start it\n"


def test_an_error_document_survives_passwords_that_read_like_its_keys_and_need_escapes(
    streams: tuple[io.StringIO, io.StringIO],
) -> None:
    out, err = streams
    for secret in ("message", "unreachable", "code-1", 'a"b\\c'):
        redaction.remember_secret(secret)
    error = ServiceError(
        'no message for a"b\\c',
        code="unreachable",
        details={"code-1": 'code-1 a"b\\c', "at": datetime(2026, 1, 1, tzinfo=UTC)},
    )
    Console(json_output=True, stdout=out, stderr=err).error(error)
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["error"] == {
        "code": "unreachable",
        "message": "no message for ***",
        "hint": None,
        "details": {"code-1": "*** ***", "at": "2026-01-01T00:00:00Z"},
    }
    assert 'a"b' not in err.getvalue()


def test_results_keep_words_that_happen_to_be_passwords(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    redaction.remember_secret("postgres")
    console = Console(stdout=out, stderr=err)
    console.document({"type": "postgres", "leak": "postgresql://u:pw@h/d sk_live_abc"})
    console.json_line({"type": "postgres"})
    console.line("type postgres")
    console.table(["type"], [["postgres"], [None], ["sk_live_abc"]])
    first, second, *rest = out.getvalue().splitlines()
    assert json.loads(first) == {"type": "postgres", "leak": "postgresql://u:***@h/d sk_live_***"}
    assert json.loads(second) == {"type": "postgres"}
    assert [line.strip() for line in rest] == ["type postgres", "type", rest[2].strip(), "postgres", "-", "sk_live_***"]


def test_json_is_masked_value_by_value(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    key, url = "sk_live_abc", "postgresql://u:pw@h/d"
    document = {
        key: [f"a\n{key}", (url, 'a quote " and'), {"path": Path(f"/{key}")}],
        "sql": Exact({"text": [url, key]}),
    }
    Console(stdout=out, stderr=err).json_line(document)
    assert json.loads(out.getvalue()) == {
        key: ["a\nsk_live_***", ["postgresql://u:***@h/d", 'a quote " and'], {"path": "/sk_live_***"}],
        "sql": {"text": [url, key]},
    }


@pytest.mark.parametrize("text", ["Zoë 🦆", "broken \udcff name"])
def test_json_fits_a_stream_of_any_encoding(text: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stdout=stream, stderr=io.StringIO()).document({"name": text})
    assert json.loads(raw.getvalue()) == {"name": text}


def test_markup_in_data_is_text(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    console = Console(stdout=out, stderr=err)
    console.line("[bold]x[/bold] [/nonsense]")
    console.table(["a"], [["[red]y[/red]"]])
    assert "[bold]x[/bold] [/nonsense]" in out.getvalue()
    assert "[red]y[/red]" in out.getvalue()


def paint(console: Console) -> None:
    console.line("x", style="bold red")
    console.table(["a"], [["b"]])
    console.warn("careful")


def test_colours_only_on_a_terminal(streams: tuple[io.StringIO, io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    plain_out, plain_err = streams
    paint(Console(stdout=plain_out, stderr=plain_err))
    assert "\x1b" not in plain_out.getvalue() + plain_err.getvalue()
    out, err = Terminal(), Terminal()
    paint(Console(stdout=out, stderr=err))
    assert "\x1b[" in out.getvalue()
    assert "\x1b[" in err.getvalue()


@pytest.mark.parametrize("how", ["flag", "NO_COLOR", "dumb"])
def test_no_escape_at_all_when_colours_are_off(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if how == "dumb" else "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if how == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    paint(Console(no_color=how == "flag", stdout=out, stderr=err))
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_quiet_drops_remarks_and_progress_but_no_warning(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    console = Console(quiet=True, stdout=out, stderr=err)
    console.info("by the way")
    with console.progress("copying", 10) as progress:
        progress.advance(10)
    console.warn("careful")
    assert err.getvalue() == "warning: careful\n"


def test_progress_off_a_terminal_is_plain_lines_on_stderr(
    streams: tuple[io.StringIO, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackctl.core import console as module

    monkeypatch.setattr(module, "PLAIN_PROGRESS_INTERVAL", 0)
    out, err = streams
    with Console(stdout=out, stderr=err).progress("copying", 4000) as progress:
        progress.advance(1000, "users")
    assert out.getvalue() == ""
    assert err.getvalue().startswith("copying users: 1,000 rows, ")
    assert "25 %" in err.getvalue()


def test_a_closed_stderr_stops_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    out = io.StringIO()
    Console(json_output=True, stdout=out, stderr=Gone()).error(ServiceError("x", code="y"))
    assert json.loads(out.getvalue())["error"]["code"] == "y"


WORDS = ["", "-", "a", "tail  ", "id of a thing", "1,234", "12", "x" * 30, "naïve", "日本", "a\tb", "two\nlines"]


@pytest.mark.parametrize("width", ["", "40", "100", "wide"])
def test_a_table_off_a_terminal_is_the_one_that_rich_would_set(
    streams: tuple[io.StringIO, io.StringIO], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    draw = random.Random(7)
    plainly = 0
    for _ in range(150):
        columns = [f"{draw.choice(WORDS[2:6])} {number}" for number in range(draw.randint(1, 5))]
        few = WORDS[: draw.choice((6, 8, len(WORDS)))]
        rows = [[draw.choice(few) for _ in columns] for _ in range(draw.randint(0, 4))]
        right = draw.sample(columns, draw.randint(0, len(columns)))
        plainly += console._aligned(columns, rows, right) is not None  # pyright: ignore[reportPrivateUsage]
        shown: list[str] = []
        for by_rich in (False, True):
            with monkeypatch.context() as patch:
                if by_rich:
                    patch.setattr(console, "_aligned", lambda *arguments: None)
                out = io.StringIO()
                Console(stdout=out).table(columns, rows, right=right)
                shown.append(out.getvalue())
        assert shown[0] == shown[1]
    assert plainly > 20 or width == "wide"


def test_what_reads_like_a_name_of_an_emoji_is_shown_as_it_is() -> None:
    for stream in (io.StringIO(), Terminal()):
        Console(stdout=stream, no_color=True).line("a :x: b")
        assert ":x:" in stream.getvalue()


def test_a_table_on_a_stream_that_is_not_utf_is_drawn_with_what_it_has() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Console(stdout=out).table(("a", "b"), [("1", "2")])
    out.flush()
    assert raw.getvalue() == b"a | b\n--+--\n1 | 2\n"


def test_a_tab_ends_where_it_does_for_rich() -> None:
    for text in ("a\tb", "日本\tb", "e\u0301\tb"):
        plain, by_rich = io.StringIO(), io.StringIO()
        Console(stdout=plain).line(text)
        RichConsole(file=by_rich, width=200).print(text, markup=False, highlight=False, soft_wrap=True)
        assert plain.getvalue() == by_rich.getvalue()
