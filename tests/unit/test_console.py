from __future__ import annotations

import io
import json
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from rich.cells import cell_len

from stackctl.core import redaction
from stackctl.core.console import Console
from stackctl.core.documents import Exact, to_json
from stackctl.core.durations import format_age
from stackctl.core.errors import ServiceError, UsageError
from stackctl.core.tables import Column


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
    console.json_document({"type": "postgres", "leak": "postgresql://u:pw@h/d sk_live_abc"})
    console.json_line({"type": "postgres"})
    console.line("type postgres")
    console.table(["type"], [["postgres"], [None], ["sk_live_abc"]])
    first, second, *rest = out.getvalue().splitlines()
    assert json.loads(first) == {"type": "postgres", "leak": "postgresql://u:***@h/d sk_live_***"}
    assert json.loads(second) == {"type": "postgres"}
    assert [line.strip() for line in rest] == ["type postgres", "type", "postgres", "-", "sk_live_***"]


def test_json_is_masked_value_by_value(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    key, url = "sk_live_abc", "postgresql://u:pw@h/d"
    document = {
        key: [f"a\n{key}", (url, 'a quote " and'), {"path": Path(f"/{key}")}],
        "sql": Exact({"text": [url, key]}),
    }
    Console(stdout=out, stderr=err).json_line(document)
    assert json.loads(out.getvalue()) == {
        "sk_live_***": ["a\nsk_live_***", ["postgresql://u:***@h/d", 'a quote " and'], {"path": "/sk_live_***"}],
        "sql": {"text": [url, key]},
    }


@pytest.mark.parametrize("text", ["Zoë 🦆", "broken \udcff name"])
def test_json_fits_a_stream_of_any_encoding(text: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stdout=stream, stderr=io.StringIO()).json_document({"name": text})
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
    from stackctl.core import progress as module

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


WORDS = ["", "-", "a", "tail  ", "id of a thing", "1,234", "12", "x" * 300, "naïve", "日本", "e\u0301", "1 2 3" * 30]


def test_a_sentence_is_folded_between_words_and_what_is_to_be_copied_stays_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    path = "/srv/stackctl/a-folder/sign-up-rules.yaml"
    out, err = Terminal(), Terminal()
    console = Console(no_color=True, stdout=out, stderr=err)
    console.line(f"  日本日本日本日本 was read from {path}, and `migrate up` follows")
    console.line(f"SELECT 1 FROM {path}", exact=True)
    console.error(ServiceError("the server does not answer", code="usage", hint=f"chmod o+x {path}"))
    assert out.getvalue().splitlines() == [
        "  日本日本日本日本 was read",
        "    from",
        f"    {path},",
        "    and `migrate up` follows",
        f"SELECT 1 FROM {path}",
    ]
    assert err.getvalue().splitlines()[:4] == [
        "error: the server does not",
        "  answer",
        "hint: chmod o+x",
        f"  {path}",
    ]
    out.truncate(0)
    Console(no_color=True, wide=True, stdout=out, stderr=err).line(f"{path} {path}")
    assert out.getvalue().strip("\0").splitlines() == [f"{path} {path}"]


def set_table(width: int, monkeypatch: pytest.MonkeyPatch, *, wide: bool = False) -> list[str]:
    """The lines of a table of failing databases on a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    console = Console(stdout=out, no_color=True, wide=wide)
    words = "the table is locked by another session"
    rows = [(TENANCY, "warehouse", "contact_channels", 1234, words), (TENANCY, "日本", "users", None, "x")]
    tries, error = Column("tries", right=True, spare=1), Column("error", folds=True)
    console.table((Column("tenancy", group=True), "database", "mapping", tries, error), rows)
    return out.getvalue().splitlines()


TENANCY = UUID("0b7cf1c3-51a4-4f0c-9d3e-2f6f1f0c7a11")


def test_a_table_fits_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    heading = f"tenancy {TENANCY}"
    assert set_table(120, monkeypatch) == [
        heading,
        "database    mapping            tries   error",
        "─" * 77,
        "warehouse   contact_channels    1234   the table is locked by another session",
        "日本        users                  -   x",
    ]
    assert set_table(70, monkeypatch) == [
        heading,
        "database    mapping            tries   error",
        "─" * 70,
        "warehouse   contact_channels    1234   the table is locked by another",
        "                                       session",
        "日本        users                  -   x",
    ]
    assert set_table(54, monkeypatch)[1:3] == ["database    mapping            error", "─" * 54]
    assert set_table(54, monkeypatch)[-1] == "--wide shows tries, too"
    assert set_table(40, monkeypatch)[:3] == ["tenancy", f"  {TENANCY}", "database  warehouse"]
    assert set_table(20, monkeypatch)[2:11] == [
        "database  warehouse",
        "mapping",
        "  contact_channels",
        "tries     1234",
        "error     the table",
        "          is locked",
        "          by another",
        "          session",
        "",
    ]
    assert {line.partition(" ")[0] for line in set_table(20, monkeypatch, wide=True)[2:]} == {str(TENANCY)}


def test_columns_are_named_once_above_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    rows = [("Cards", "card", "on"), ("Wallets", "apple_pay", "off"), ("Wallets", "link", "on")]
    Console(stdout=out, no_color=True).table((Column("category", group=True), "method", "state"), rows)
    assert out.getvalue().splitlines() == [
        "category Cards",
        "method      state",
        "─────────────────",
        "card        on",
        "",
        "category Wallets",
        "apple_pay   off",
        "link        on",
    ]


@pytest.mark.parametrize("width", [20, 40, 79, 80, 140])
def test_no_width_cuts_what_is_to_be_copied(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    draw = random.Random(width)
    for _ in range(100):
        spared = iter(draw.sample(range(1, 6), 5))
        columns = [
            Column(
                f"{draw.choice(WORDS[2:6])} {number}",
                folds=draw.random() < 0.5,
                spare=next(spared) if draw.random() < 0.5 else 0,
            )
            for number in range(draw.randint(1, 5))
        ]
        rows = [[f"{draw.choice(WORDS)}{draw.random()}" for _ in columns] for _ in range(draw.randint(1, 4))]
        monkeypatch.setenv("COLUMNS", str(width))
        out = Terminal()
        Console(stdout=out, no_color=True).table(columns, rows)
        shown = out.getvalue()
        whole = [[cell for one, cell in zip(columns, row, strict=True) if not (one.folds or one.spare)] for row in rows]
        assert [cell for row in whole for cell in row if cell not in shown] == []
        if "─" in shown and all(column.folds for column in columns):
            assert all(cell_len(line) <= width for line in shown.splitlines() if not line.startswith("--wide"))


def test_a_table_off_a_terminal_is_separated_by_tabs_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = io.StringIO()
    rows = [("a\tb", None, datetime(2026, 1, 2, 3, 4, 5)), ("x " * 40, 7, datetime(2026, 1, 2, tzinfo=UTC))]
    Console(stdout=out).table(
        (Column("a", folds=True), Column("b", right=True, group=True), Column("c", spare=1)), rows
    )
    assert out.getvalue().split("\n") == [
        "a\tb\tc",
        "a\\tb\t-\t2026-01-02T03:04:05Z",
        f"{'x ' * 40}\t7\t2026-01-02T00:00:00Z",
        "",
    ]


def test_a_time_is_an_age_on_a_terminal() -> None:
    ages = {0: "0 s ago", 59.9: "59 s ago", 60: "1 min ago", 3600 * 5: "5 h ago", 86400 * 3: "3 d ago", -90: "in 1 min"}
    assert {seconds: format_age(seconds) for seconds in ages} == ages
    out = Terminal()
    Console(stdout=out, no_color=True).table(["at"], [[datetime.now(UTC) - timedelta(hours=2, minutes=1)]])
    assert out.getvalue().splitlines()[-1] == "2 h ago"


def test_what_reads_like_a_name_of_an_emoji_is_shown_as_it_is() -> None:
    for stream in (io.StringIO(), Terminal()):
        Console(stdout=stream, no_color=True).line("a :x: b")
        assert ":x:" in stream.getvalue()


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", rb"d\xfc\u65e5 -> ..."),
        ("latin-1", rb"d" + b"\xfc" + rb"\u65e5 -> ..."),
        ("cp1252", rb"d" + b"\xfc" + rb"\u65e5 -> " + b"\x85"),
        ("utf-8", "dü日 → …".encode()),
    ],
)
def test_a_stream_shows_what_its_encoding_has(encoding: str, shown: bytes) -> None:
    raws = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(raw, encoding=encoding) for raw in raws)
    console = Console(stdout=out, stderr=err)
    console.line("dü日 → …")
    console.table(["a"], [["dü日 → …"]])
    console.warn("dü日 → …")
    assert raws[0].getvalue() == shown + b"\na\n" + shown + b"\n"
    assert raws[1].getvalue() == b"warning: " + shown + b"\n"


# -- documents, sentences, tables

# A cleared screen, a forged line, turned text, a command to a runner, a character that is not seen.
EVIL = "a\x1b[2J\x9b2J\rb\nerror: c\u2028d\u202ee\u200bf\u2066##[stop-commands]g"
SHOWN = r"a\x1b[2J\x9b2J\rb\nerror: c\u2028d\u202ee\u200bf\u2066\x23#[stop-commands]g"
DOCUMENT = "SELECT\t':x:' [red]\r\n, 'postgresql://u:pw@h/d sk_live_abc' -- \x1b[2J \u202e é \udcff\n\n  "


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_document_is_bytes_and_comes_where_it_was_written(encoding: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(stdout=out)
    console.line("before")
    console.document(DOCUMENT)
    console.line("after é")
    out.flush()
    after = "after é\n".encode(encoding, "backslashreplace")
    assert raw.getvalue() == b"before\n" + DOCUMENT.encode("utf-8", "surrogateescape") + after


def test_on_a_terminal_a_document_is_shown_and_not_obeyed() -> None:
    out = Terminal()
    Console(stdout=out, no_color=True).document(DOCUMENT + "x")
    assert out.getvalue() == (
        "SELECT\t':x:' [red]\n, 'postgresql://u:pw@h/d sk_live_abc' -- \\x1b[2J \\u202e é \\udcff\n\n  x\n"
    )


def test_a_diff_is_a_document_too(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, _ = streams
    text = "--- f\n+++ f\n@@ -1 +1 @@\n-a\t:x:\r\n+postgresql://u:pw@h/d \x1b[2J"
    Console(stdout=out).diff(text)
    Console(stdout=out).diff("")
    assert out.getvalue() == text + "\n"
    terminal = Terminal()
    Console(stdout=terminal, no_color=True).diff(text)
    assert "\x1b" not in terminal.getvalue()
    assert [line.rstrip() for line in terminal.getvalue().splitlines()[3:]] == [
        "-a      :x:\\r",
        "+postgresql://u:pw@h/d \\x1b[2J",
    ]


def test_a_terminal_names_the_command_that_explains_an_error_once() -> None:
    out = Terminal()
    console = Console(stdout=out, stderr=out, no_color=True)
    console.warn_of("here", ServiceError("gone", code="unreachable", hint="wait"))
    console.warn_of("there", ServiceError("gone", code="unreachable"))
    console.error(UsageError("wrong", code="unknown-rule"))
    assert out.getvalue().splitlines() == [
        "warning: here: gone (wait)",
        "more: stackctl explain unreachable",
        "warning: there: gone",
        "error: wrong",
    ]
    for quiet, stream in ((True, Terminal()), (False, io.StringIO())):
        Console(stderr=stream, quiet=quiet).error(ServiceError("gone", code="unreachable"))
        assert "explain" not in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_value_neither_ends_its_line_nor_turns_it(stream: type[io.StringIO]) -> None:
    for say in (
        lambda console: console.line(EVIL),
        lambda console: console.table(["x" * len(SHOWN)], [[EVIL]]),
        lambda console: console.info(EVIL),
        lambda console: console.error(ServiceError(EVIL, code="bug", hint=EVIL)),
        lambda console: console.error(ServiceError([EVIL, EVIL], code="bug")),
        lambda console: console.traceback([EVIL]),
        lambda console: console.warn(EVIL),
    ):
        out = stream()
        say(Console(stdout=out, stderr=out, no_color=True))
        *others, last = out.getvalue().splitlines()
        assert SHOWN in last
        assert all(one.isprintable() for one in others)
        assert len(others) <= 2


@pytest.mark.parametrize("begin", ["::stop-commands::x", "  ::add-mask::x", "::error file=a::b"])
def test_no_value_is_a_command_to_a_runner_of_github_actions(
    streams: tuple[io.StringIO, io.StringIO], begin: str
) -> None:
    out, err = streams
    console = Console(stdout=out, stderr=err)
    console.line(begin)
    console.line(begin, exact=True)
    console.table(["a"], [[begin]])
    console.info(begin)
    console.traceback([begin])
    assert not [line for line in (out.getvalue() + err.getvalue()).splitlines() if line.lstrip().startswith("::")]
    console.line("::1")
    assert out.getvalue().endswith("\n::1\n")


def test_an_error_of_many_mistakes_has_a_line_for_each(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    Console(stdout=out, stderr=err, json_output=True).error(ServiceError(["a:1: x", "a:2: y"], code="c", hint="z"))
    assert err.getvalue() == "error: a:1: x\na:2: y\nhint: z\n"
    assert json.loads(out.getvalue())["error"]["message"] == "a:1: x\na:2: y"


def test_a_line_that_shows_a_document_is_not_masked(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, _ = streams
    console = Console(stdout=out)
    console.line("a\tsk_live_abc", exact=True)
    console.line("a\tsk_live_abc")
    console.table(["a", Column("b", exact=True)], [["sk_live_abc", "sk_live_abc"]])
    assert out.getvalue().splitlines()[:2] == ["a\tsk_live_abc", "a\\tsk_live_***"]
    assert out.getvalue().splitlines()[-1] == "sk_live_***\tsk_live_abc"


def test_nothing_in_json_is_obeyed_and_nothing_is_lost() -> None:
    for stream in (io.StringIO(), Terminal()):
        Console(stdout=stream).json_document({EVIL: [EVIL, "é日本 \U000e0001 \ud800"]})
        text = stream.getvalue()
        assert all(one.isprintable() or one == "\n" for one in text)
        assert "é日本" in text
        assert "##[" not in text
        assert json.loads(text) == {EVIL: [EVIL, "é日本 \U000e0001 \ud800"]}


def test_a_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    err = Terminal()
    with Console(stdout=io.StringIO(), stderr=err).progress("copying [red]x[/red]", 10) as progress:
        progress.advance(1, "[link=http://evil]y\x1b]0;title\x07")
        progress._bar.refresh()  # pyright: ignore
    assert "copying [red]x[/red] [link=http://evil]y\\x1b]0;title\\x07" in err.getvalue()


def test_lists_for_scripts_hold_whole_values(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    console = Console(stdout=out, stderr=err)
    when = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    row = ("a\nb", TENANCY, when, None, 12, 'say "x", y\tz', "postgresql://u:hunter2@h/d", "sk_live_abc123")
    console.csv(("name", "id", "at", "none", "n", "text", "url", Column("sql", exact=True)), [row])
    console.names([row[0], TENANCY])
    assert out.getvalue() == (
        "name,id,at,none,n,text,url,sql\n"
        f'"a\nb",{TENANCY},2026-01-02T03:04:05.000678Z,,12,"say ""x"", y\tz",postgresql://u:***@h/d,sk_live_abc123\n'
        f"a\\nb\n{TENANCY}\n"
    )


def test_a_filter_sees_masked_documents_and_keeps_errors_off_stdout(streams: tuple[io.StringIO, io.StringIO]) -> None:
    out, err = streams
    console = Console(json_output=True, jq=".a[]", stdout=out, stderr=err)
    console.json_document({"a": ["x\ty", "postgresql://u:hunter2@h/d", {"é": None}, 1, TENANCY]})
    shown = f'x\ty\npostgresql://u:***@h/d\n{{"é": null}}\n1\n{TENANCY}\n'
    assert (out.getvalue(), err.getvalue(), console.filter_failed) == (shown, "", False)
    console.json_line({"a": 5})
    console.error(ServiceError("gone", code="gone"))
    assert out.getvalue() == shown
    assert err.getvalue().startswith("error: --jq: Cannot iterate over number (5)\nhint: the command itself is done")
    assert err.getvalue().endswith("error: gone\n") and console.filter_failed


def test_a_question_keeps_ids_whole_and_leaves_room_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    id_ = "in_0_cfe43dec-48b6-469b-af1d-bc6fdcbc942a"
    question = f"Refund 12.00 USD (test money) of Pro to team t1, who paid 30.00 USD on 2026-11-28 (invoice {id_})?"
    lines = Console(stdout=Terminal(), stderr=Terminal()).fold_question(question).split("\n")
    assert [line for line in lines if id_ in line]
    assert max(map(len, lines)) + len(" [y/N]: y") <= 80
    assert Console(stdout=Terminal(), stderr=io.StringIO()).fold_question(question) == question
