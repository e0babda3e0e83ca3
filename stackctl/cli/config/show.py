"""stackctl config: what applies, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.cli.command import Run, command
from stackctl.core.errors import ConfigError, StackctlError
from stackctl.core.tables import Column

if TYPE_CHECKING:
    from stackctl.config.file import ConfigFile
    from stackctl.config.settings import ExternalDatabase, Settings


@dataclass(frozen=True)
class _Line:
    """One setting as shown, without secrets."""

    key: str
    value: str | int | None
    source: str
    origin: str


@command(example="stackctl config show\nstackctl config show --json")
def show(run: Run) -> None:
    """Print every setting, where its value came from, and the configured databases; no secrets.

    A value that waits for a variable which is not set is shown as `(unset: NAME)`.

    Prints the file that was read, a row for each setting, and a row for each external database.
    Exit codes: 0 printed.
    """
    from stackctl.config.keys import KEYS

    settings = run.settings
    file = settings.file_in_effect
    lines = [_line(settings, key) for key in KEYS]
    # A broken file that --database-url made harmless configures nothing.
    databases = settings.external_databases() if file is not None else ()
    tenancies = settings.tenancies() if file is not None else ()
    if settings.get("external_databases_from") == "backend":
        databases = _of_backend(run)
        tenancies = tuple(dict.fromkeys(each.tenancy for each in databases))
    path = str(file.path) if file is not None else None
    document = {
        "config_file": path,
        "settings": [{"key": x.key, "value": x.value, "source": x.source, "origin": x.origin} for x in lines],
        "tenancies": [
            {
                "tenancy": tenancy,
                "databases": [_database(settings, each) for each in databases if each.tenancy == tenancy],
            }
            for tenancy in tenancies
        ],
    }

    def table() -> None:
        run.console.line(f"Configuration file: {path or 'none'}")
        run.console.line()
        run.console.table(
            ("key", Column("value", folds=True), Column("from", folds=True, spare=1)),
            [(line.key, line.value, _shorten(line, file)) for line in lines],
        )
        if databases:
            rows = []
            for each in databases:
                shown = _database(settings, each)
                names = "all" if each.mappings is None else ", ".join(each.mappings) or "none"
                rows.append((each.tenancy, each.id, each.type, shown["connection"], names))
            run.console.line()
            run.console.table(
                (
                    Column("tenancy", group=True),
                    "database",
                    "type",
                    Column("connection", folds=True),
                    Column("mappings", folds=True),
                ),
                rows,
            )

    run.finish(document, table)


def _shorten(line: _Line, file: ConfigFile | None) -> str:
    """`stackctl.yaml:4`: the file's folder and the key stand above and beside it."""
    if file is None:
        return line.origin
    return line.origin.removesuffix(f": {line.key}").replace(f"{file.path}:", f"{file.path.name}:")


def _of_backend(run: Run) -> tuple[ExternalDatabase, ...]:
    from stackctl.sync.pipeline import Pipeline

    try:
        return tuple(each for found in Pipeline(run.settings).databases.values() for each in found)
    except StackctlError as error:
        run.console.warn(f"the backend's external databases can't be read: {error.message}")
        return ()


def _line(settings: Settings, key: str) -> _Line:
    try:
        setting = settings.setting(key)
    except ConfigError as error:
        if error.code != "variable-not-set":
            raise
        file = settings.file_in_effect
        entry = file.find_entry(key) if file is not None else None
        return _Line(key, _unset(error), "file", entry.where if entry is not None else key)
    return _Line(key, setting.format_value(), setting.source, setting.origin)


def _database(settings: Settings, database: ExternalDatabase) -> dict[str, Any]:
    try:
        connection = settings.resolve_database(database).connection
    except StackctlError as error:
        if error.code == "variable-not-set":
            connection = _unset(error)
        elif database.problem is not None:
            connection = f"({error.message})"
        else:
            raise
    return {
        "database": database.id,
        "type": database.type,
        "connection": connection,
        "mappings": list(database.mappings) if database.mappings is not None else None,
    }


def _unset(error: StackctlError) -> str:
    return f"(unset: {error.details['variable']})"
