"""What stackctl shows: results on stdout, everything else on stderr, no secret on either.

The only module (with the CLI's) that prints.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from stackctl.core.durations import format_duration
from stackctl.core.redaction import mask_shapes, scrub, scrub_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console as RichConsole

    from stackctl.core.errors import StackctlError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tab and the end of a line
WIDTH = 200  # of tables off a terminal, unless COLUMNS says otherwise: logs must not find them folded at 80
PLAIN_PROGRESS_INTERVAL = 3.0  # seconds between progress lines off a terminal


def make_harmless(text: str) -> str:
    """Text of several lines without secrets, and without what a terminal would obey: notes are anybody's."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", mask_shapes(text))


def escape_unprintable(text: str) -> str:
    """A value within a line: beside what a terminal would obey, what would break the line or turn its direction."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def to_json(document: Any, *, indent: int | None = None) -> str:
    """One JSON document; times are ISO 8601 in UTC, ids and amounts are strings."""
    return json.dumps(document, default=_plain, indent=indent, ensure_ascii=False)


@dataclass(frozen=True)
class Exact:
    """A part of a JSON document that is a document itself (SQL, a condition, a diff): shown as it is."""

    value: Any


def _mask_values(value: Any) -> Any:
    """A result whose strings hold nothing that looks like a secret; the names of keys stay as they are."""
    match value:
        case str() | Path():
            return mask_shapes(str(value))
        case dict():
            return {name: _mask_values(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_mask_values(inner) for inner in value]
        case _:
            return value


def _plain(value: Any) -> Any:
    match value:
        case Exact():
            return value.value
        case datetime():
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case UUID() | Path() | Decimal():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> list[str] | None:
    """The lines of a table as rich sets it, where that takes no measuring of glyphs and no folding; else None."""
    given = os.environ.get("COLUMNS") or str(WIDTH)
    cells = [columns, *rows]
    if not given.isdigit() or not all(cell.isascii() and cell.isprintable() for row in cells for cell in row):
        return None
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    total = sum(widths) + 3 * (len(widths) - 1)
    if total > int(given):
        return None

    def line(row: Sequence[str]) -> str:
        return "   ".join(
            cell.rstrip().rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        )

    return [line(columns), "─" * total, *map(line, rows)]


class Console:
    """The two streams of one process, and how much to say on them."""

    def __init__(
        self,
        *,
        json_output: bool = False,
        quiet: bool = False,
        no_color: bool = False,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.json_output = json_output
        self.quiet = quiet
        self._out = stdout or sys.stdout
        self._err = stderr or sys.stderr
        self._no_color = no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"

    # -- stdout: the result

    def document(self, document: Any) -> None:
        """The one JSON document of a command, indented for eyes on a terminal, compact lines off it."""
        self._write_json(document, indent=2 if self._out.isatty() else None)

    def json_line(self, document: Any) -> None:
        """One object of a `--loop` or `--watch`, flushed."""
        self._write_json(document)

    def _write_json(self, document: Any, *, indent: int | None = None) -> None:
        text = to_json(_mask_values(document), indent=indent)
        try:
            text.encode(getattr(self._out, "encoding", None) or "utf-8")
        except UnicodeEncodeError:  # a stream of another encoding, or a file name that is not text
            text = json.dumps(json.loads(text), indent=indent)
        self._out.write(text + "\n")
        self._out.flush()

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line of the result."""
        shown = make_harmless(text)
        # How far a tab goes behind glyphs of several cells is rich's to know.
        if self._is_plain and (shown.isascii() or "\t" not in shown):
            self._write(shown.expandtabs())
        else:
            self.rich.print(shown, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        right: Sequence[str] = (),
        whole: Sequence[str] = (),
    ) -> None:
        """A table; the columns named in `right` are aligned right, those in `whole` stay on one line, to be copied.

        None is shown as a dash.
        """
        shown = [["-" if cell is None else make_harmless(str(cell)) for cell in row] for row in rows]
        if self._is_plain and (lines := _aligned(columns, shown, right)) is not None:
            self._write("\n".join(lines))
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for column in columns:
            justify = "right" if column in right else "left"
            table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
        for row in shown:
            table.add_row(*map(Text, row))
        self.rich.print(table)

    @property
    def _is_plain(self) -> bool:
        """Whether stdout can be written without rich, whose import costs a command a tenth of its start.

        Not a terminal, and not a stream that can't take a table's rule, for which rich has another.
        """
        encoding = getattr(self._out, "encoding", None) or "utf-8"
        return not self._out.isatty() and encoding.lower().startswith("utf")

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    @cached_property
    def rich(self) -> RichConsole:
        """The rich console on stdout."""
        return self._rich(self._out)

    def _rich(self, stream: IO[str]) -> RichConsole:
        from rich.console import Console as RichConsole

        width = None if stream.isatty() or os.environ.get("COLUMNS") else WIDTH
        # Said outright, because rich by itself would let FORCE_COLOR and CI variables colour a file.
        colored = stream.isatty() and not self._no_color
        color_system = "auto" if colored else None
        return RichConsole(
            file=stream, force_terminal=stream.isatty(), color_system=color_system, width=width, highlight=False
        )

    # -- stderr: everything else

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked: both stdin and stderr are terminals."""
        return sys.stdin is not None and sys.stdin.isatty() and self._err.isatty()

    def info(self, text: str) -> None:
        """A remark that --quiet drops."""
        if not self.quiet:
            self._say(make_harmless(text))

    def warn(self, text: str) -> None:
        self._say(self._styled("warning: ", "33") + make_harmless(text))

    def error(self, error: StackctlError) -> None:
        """`error:` and `hint:` on stderr; under --json the error document on stdout as well."""
        self._say(self._styled("error: ", "1;31") + make_harmless(error.message))
        if error.hint:
            self._say(self._styled("hint: ", "36") + make_harmless(error.hint))
        if self.json_output:
            body = {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
            # Value by value: a password that reads `message` must not take the place of a key.
            self._write_json({"error": {**scrub_values(json.loads(to_json(body))), "code": error.code}})

    def traceback(self, text: str) -> None:
        self._say(text.rstrip("\n"))

    def _say(self, text: str) -> None:
        try:
            self._err.write(scrub(text) + "\n")
            self._err.flush()
        except BrokenPipeError:
            pass

    def _styled(self, text: str, code: str) -> str:
        return text if self._no_color or not self._err.isatty() else f"\x1b[{code}m{text}\x1b[0m"

    @contextmanager
    def progress(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Progress]:
        """Progress of long work: a bar on a terminal, a plain line every few seconds off one, nothing when quiet."""
        if self.quiet:
            yield Progress()
        elif self._err.isatty() and not self._no_color:
            with _BarProgress(self._rich(self._err), label, total) as bar:
                yield bar
        else:
            yield _LineProgress(self, label, total, unit)


class Progress:
    """Progress that nobody sees."""

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more is done; `note` says what is in hand."""


class _BarProgress(Progress):
    def __init__(self, console: RichConsole, label: str, total: int | None) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._label = label
        self._started = time.monotonic()
        self._done = 0
        self._task = self._bar.add_task(label, total=total, rate="")

    def __enter__(self) -> _BarProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        rate = self._done / max(time.monotonic() - self._started, 0.001)
        description = f"{self._label} {note}".rstrip()
        self._bar.update(self._task, advance=amount, description=description, rate=f"{rate:,.0f}/s")


class _LineProgress(Progress):
    def __init__(self, console: Console, label: str, total: int | None, unit: str) -> None:
        self._console, self._label, self._total, self._unit = console, label, total, unit
        self._started = self._spoke = time.monotonic()
        self._done = 0

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._spoke < PLAIN_PROGRESS_INTERVAL:
            return
        self._spoke = now
        rate = self._done / (now - self._started)
        text = f"{self._label} {note}".rstrip() + f": {self._done:,} {self._unit}, {rate:,.0f}/s"
        if self._total and rate:
            left = max(self._total - self._done, 0) / rate
            text += f", {100 * self._done / self._total:.0f} %, {format_duration(left)} left"
        self._console.info(text)
