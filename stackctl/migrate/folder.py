"""A folder of migrations: its files in order, and a new one. Nothing here knows a database."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, UsageError
from stackctl.migrate import up_halves
from stackctl.migrate.files import Migration, parse_migration
from stackctl.migrate.source_text import decode_text, read_bytes, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAME = re.compile(r"(?P<version>\d{14})_(?P<name>.+)")
_OTHERS_NAME = re.compile(r"\d{1,18}_.+")
_FLYWAYS_NAME = re.compile(r"(?:[VU]\d[\d._]*|R)__.+\.sql")
_VERSION_FORMAT = "%Y%m%d%H%M%S"


def discover(directory: Path) -> tuple[Migration, ...]:
    """The migrations in `directory`, in order of name.

    Read are `<14 digits>_<name>.sql` and `<14 digits>_<name>/migration.sql`, and the files of other tools that number
    them in another way, of pairs the way up; anything else is left alone, but a SQL
    file that would silently not run is an error. Raises ConfigError naming file and line.
    """
    return tuple(_read_migration(name, path) for name, path in list_files(directory))


def _read_migration(name: str, path: Path) -> Migration:
    data = read_bytes(path)
    migration = parse_migration(decode_text(path, data), path, name)
    if path.name != "migration.sql":
        return migration
    # Prisma's own checksum, of what is run now: the file may be another one by the time that Prisma is told.
    return replace(migration, content_sha256=hashlib.sha256(data).hexdigest())


def list_files(directory: Path) -> list[tuple[str, Path]]:
    """Name and path of each migration in `directory`, in order, unread. Raises ConfigError."""
    if not directory.is_dir():
        what = "is a file, and no folder of migrations" if directory.exists() else "is not a directory of migrations"
        raise ConfigError(
            f"{directory} {what}",
            code="migrations-dir-missing",
            hint="set migrations_dir in stackctl.yaml, or create one with stackctl migrate new NAME",
        )
    try:
        found = sorted(_find_files(directory), key=lambda item: item[0])
    except OSError as error:
        raise ConfigError(f"{directory} can't be read: {error.strerror}", code="migrations-dir-unreadable") from error
    for (earlier, before), (name, path) in pairwise(found):
        if read_number(name) == read_number(earlier):
            raise ConfigError(
                f"{before} and {path} have the same version {name.partition('_')[0]}",
                code="duplicate-migration-version",
                hint="give one of them another timestamp, unless it was applied already",
            )
        if read_number(name) < read_number(earlier):
            raise ConfigError(
                f"{before} sorts before {path}, and has the higher version",
                code="invalid-migration-file-name",
                hint="write the versions with the same number of digits",
            )
    return found


def read_name(path: Path) -> str:
    """The migration's name by the path of its file."""
    return path.parent.name if path.name == "migration.sql" else path.stem.removesuffix(up_halves.UP)


def read_number(name: str) -> int:
    """The version that a migration's name begins with."""
    return int(name.partition("_")[0])


def create_file(directory: Path, name: str, now: datetime, text: str | None = None) -> Path:
    """Write a migration, an empty one with its directives explained; its version is above every existing one.

    Raises UsageError for a name without a letter or digit, ConfigError for a directory that can't be used.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
    if not slug or len(slug) > 100:
        raise UsageError(
            f"{name!r} is not a name for a migration",
            code="invalid-migration-name",
            hint="use a few words of ASCII letters and digits: stackctl migrate new add_team_slug",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        version = now.astimezone(UTC).strftime(_VERSION_FORMAT)
        latest = max((name.partition("_")[0] for name, _ in _find_files(directory)), key=int, default="0")
        if int(version) <= int(latest):
            version = _next_version(latest)
        path = directory / f"{version}_{slug}.sql"
        path.write_text(_TEMPLATE if text is None else text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(
            f"{directory} can't be written: {error.strerror}", code="migrations-dir-unwritable"
        ) from error
    return path


def _next_version(version: str) -> str:
    """The next version: one second later, or one number higher where an existing version is no real date."""
    try:
        return (datetime.strptime(version, _VERSION_FORMAT) + timedelta(seconds=1)).strftime(_VERSION_FORMAT)
    except ValueError:
        return f"{int(version) + 1:014d}"


def _find_files(directory: Path) -> Iterable[tuple[str, Path]]:
    for entry in directory.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            path = entry / "migration.sql"
            if not _NAME.fullmatch(entry.name) and not path.exists():
                continue
        elif entry.suffix.lower() == ".sql" and not entry.stem.endswith(up_halves.DOWN):
            path = entry
        else:
            continue
        name = read_name(path)
        if not _is_unicode(name):
            raise ConfigError(
                f"{path}: the name is not UTF-8",
                code="invalid-migration-file-name",
                hint="rename it; what is applied is recorded by its name",
            )
        if not _NAME.fullmatch(name) and not _is_named_by_another_tool(path, name):
            flyways = _FLYWAYS_NAME.fullmatch(entry.name)
            raise ConfigError(
                f"{path} is not named like a migration",
                code="invalid-migration-file-name",
                hint="this is Flyway's way to name them; write <14 digits>_<name>.sql, without those that undo (U…)"
                if flyways
                else "name it <14 digits>_<name>.sql (stackctl migrate new NAME does), or move it elsewhere",
            )
        yield name, path


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in name)


def _is_named_by_another_tool(path: Path, name: str) -> bool:
    """Other tools number as they like; in a file that has nothing of theirs, such a name is a slip."""
    numbered = _OTHERS_NAME.fullmatch(name) is not None
    return numbered and (path.stem.endswith(up_halves.UP) or bool(up_halves.find_tool(read_text(path))))


_TEMPLATE = """\
-- The whole file runs in one transaction, together with its row in the history. Write no BEGIN or COMMIT.
-- Tables without a schema are those of database.schema. A comment line of its own can say more:
--
--   "-- stackctl:split"                 parts the file into pieces; the directives below hold for one piece
--   "-- stackctl:outside-transaction"   commits what came before, then runs this piece's statements one by one:
--                                       for CREATE INDEX CONCURRENTLY and the like
--   "-- stackctl:repeat"                this piece is one statement that returns a boolean should_repeat_migration;
--                                       while true, what ran is committed and the whole file runs again: a backfill
--                                       in batches. Write the rest of the file so that it may run twice.

"""
