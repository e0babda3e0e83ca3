"""How a command is declared: the options that every command shares, its examples, and what it is handed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.core.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from stackctl.config.settings import Settings
    from stackctl.core.console import Console
    from stackctl.core.tables import Column
    from stackctl.postgres.connect import Connection

PANEL = "Common options"
_META = "stackctl"
WRITTEN_FILES = ("csv", "junit", "output", "report", "schema_dump")  # parameters that name a FILE to be written
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration file.", rich_help_panel=PANEL)
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="The operated database.", rich_help_panel=PANEL),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=PANEL)]
Jq = Annotated[
    str | None,
    typer.Option(
        "--jq", metavar="EXPR", help="Filter the JSON document by an expression of jq.", rich_help_panel=PANEL
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel=PANEL)]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours.", rich_help_panel=PANEL)]
Wide = Annotated[
    bool, typer.Option("--wide", help="Show all columns of tables, and fold nothing.", rich_help_panel=PANEL)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=PANEL)]
_SHARED = {
    "config": (Config, None),
    "database_url": (DatabaseUrl, None),
    "json_output": (Json, False),
    "jq": (Jq, None),
    "quiet": (Quiet, False),
    "no_color": (NoColor, False),
    "wide": (Wide, False),
    "debug": (Debug, False),
}


class ListFormat(Enum):
    NAME = "name"
    CSV = "csv"


Output = Annotated[
    ListFormat | None,
    typer.Option("--output", "-o", help="The first column alone, one a line; or all columns as CSV."),
]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
CONTEXT = inspect.Parameter("ctx", _KEYWORD, annotation=typer.Context)
PARAMETERS = [
    inspect.Parameter(name, _KEYWORD, default=default, annotation=annotation)
    for name, (annotation, default) in _SHARED.items()
]
_LIST_PARAMETER = inspect.Parameter("list_format", _KEYWORD, default=None, annotation=Output)


@dataclass(frozen=True)
class Run:
    """What a command works with: its console, and the settings, which read nothing until asked."""

    options: dict[str, Any]

    @cached_property
    def console(self) -> Console:
        from stackctl.core.console import Console

        given = self.options
        return Console(
            json_output=given["json_output"],
            jq=given["jq"],
            quiet=given["quiet"],
            no_color=given["no_color"],
            wide=given["wide"],
        )

    @cached_property
    def settings(self) -> Settings:
        from stackctl.config.settings import Flags, Settings

        given = self.options
        flags = Flags(
            config=given["config"],
            database_url=given["database_url"],
            stripe_api_key=given.get("stripe_api_key"),
            stripe_api_base=given.get("stripe_api_base"),
        )
        return Settings(flags, warn=self.console.warn)

    def database(self) -> AbstractContextManager[Connection]:
        """The operated database, for the length of a `with`; its errors come out as StackctlErrors."""
        from stackctl.postgres.connect import open_operated_session

        return open_operated_session(self.settings)

    @property
    def json_output(self) -> bool:
        return self.options["json_output"]

    @property
    def is_for_script(self) -> bool:
        """Whether the result is asked for in a form that holds nothing else: --json, --jq or -o."""
        return self.json_output or self.options["list_format"] is not None

    def finish(self, document: Any, show: Callable[[], None], *, ok: bool = True, exit_code: int = 1) -> None:
        """End with a result: the document under --json, else what `show` prints; exit code 0 when ok."""
        if self.json_output:
            self.console.json_document(document)
        else:
            show()
        if not ok:
            raise typer.Exit(exit_code)

    def finish_list(
        self,
        document: Any,
        columns: Sequence[str | Column],
        rows: Sequence[Sequence[Any]],
        *,
        empty: str,
        after: Callable[[], None] | None = None,
    ) -> None:
        """End with a list: the document under --json, rows as -o asks, else a table; the command has `lists=True`.

        `empty` is said where there are no rows, `after` shows what stands below a table or that.
        """
        if (wanted := self.options["list_format"]) is not None:
            if wanted is ListFormat.NAME:
                name = next(place for place, one in enumerate(columns) if isinstance(one, str) or not one.group)
                self.console.names(row[name] for row in rows)
            else:
                self.console.csv(columns, rows)
            return

        def show() -> None:
            if rows:
                self.console.table(columns, rows)
            else:
                self.console.line(empty)
            if after is not None:
                after()

        self.finish(document, show)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before money or destruction; off a terminal only --yes will do. Raises StateError on a no."""
        if yes:
            return
        if not self.console.interactive:
            raise StateError(
                f"{question} This needs a confirmation, and there is no terminal to ask on",
                code="confirmation-required",
                hint="pass --yes to go ahead",
            )
        if not typer.confirm(self.console.fold_question(question), default=False, err=True):
            raise StateError("not confirmed; nothing was changed", code="not-confirmed")


def shared_options(ctx: typer.Context) -> dict[str, Any]:
    """The shared options given so far, at any level of the command line."""
    return ctx.meta.setdefault(_META, {name: default for name, (_, default) in _SHARED.items()})


def collect_shared_options(ctx: typer.Context, given: dict[str, Any]) -> dict[str, Any]:
    options = shared_options(ctx)
    # Later beats earlier: `stackctl --config a status --config b` reads b. An empty text was given, too: it must not
    # let the surroundings choose the database.
    options.update({name: given[name] for name, (_, default) in _SHARED.items() if given[name] != default})
    if options["jq"] is not None:
        options["json_output"] = True
    return options


@dataclass(frozen=True)
class Declared:
    """A command as its module declares it: what typer is to call, and the examples that its help ends with."""

    invoke: Callable[..., None]
    example: str
    settings: dict[str, Any]


def command(*, example: str, lists: bool = False, **settings: Any) -> Callable[[Callable[..., None]], Declared]:
    """Declare `function(run, …)` as its module's command, with the shared options and a runnable example in its help.

    `example` is one or more lines, each a command of at most 78 characters; a longer one goes on below a `\\`. With
    `lists`, its result is one list, of which -o has two forms.
    """

    def declare(function: Callable[..., None]) -> Declared:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        def invoke(ctx: typer.Context, **arguments: Any) -> None:
            options = collect_shared_options(ctx, arguments)
            list_format = arguments.pop("list_format", None)
            if list_format is not None and options["json_output"]:
                raise UsageError("-o does not go with --json or --jq", code="usage")
            run = Run({**options, "list_format": list_format})
            _refuse_non_utf8(ctx, arguments)
            arguments = _resolve_dashes(ctx, arguments)
            if options["jq"] is not None:
                run.console.compile_filter()
            try:
                function(run, **{key: value for key, value in arguments.items() if key not in _SHARED})
            except typer.Exit as end:
                if end.exit_code:
                    raise
            if options["jq"] is not None and run.console.filter_failed:
                raise typer.Exit(1)

        shown = [p.replace(kind=_KEYWORD) for p in own] + ([_LIST_PARAMETER] if lists else [])
        set_signature(invoke, [CONTEXT, *shown, *PARAMETERS])
        invoke.__doc__ = function.__doc__
        return Declared(invoke, example.strip(), settings)

    return declare


def _refuse_non_utf8(ctx: typer.Context, arguments: dict[str, Any]) -> None:
    """UsageError for what the shell passed on though it is no text: nothing could print, store or send it."""
    for name, value in arguments.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any("\ud800" <= one <= "\udfff" for one in text):
                option = next(max(one.opts, key=len) for one in ctx.command.params if one.name == name)
                shown = option if option.startswith("-") else ascii(text)
                raise UsageError(f"{shown} is not valid UTF-8", code="usage")


def _resolve_dashes(ctx: typer.Context, arguments: dict[str, Any]) -> dict[str, Any]:
    """A FILE of `-` is stdin, or stdout where it is written."""

    from stackctl.core.files import STDIN, STDOUT

    def resolve(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(name, one) for one in value]
        return value if value != Path("-") else STDOUT if name in WRITTEN_FILES else STDIN

    files = [one.name for one in ctx.command.params if one.name not in _SHARED and "FILE" in (one.metavar or "")]
    return arguments | {name: resolve(name, arguments[name]) for name in files if name in arguments}


def set_signature(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {p.name: p.annotation for p in parameters}
