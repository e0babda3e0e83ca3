"""Where every setting comes from: flag, then environment, then stackctl.yaml, then the default.

Sources are touched only when a value is asked for, and only as far as that value needs: a flag that answers the
question keeps a broken file from mattering, and `${NAME}` is filled when the value is used.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stackctl.config.keys import BUNDLED, DATABASE_KEYS, KEYS, Key, convert_value, fill_references, is_reference
from stackctl.core.bundled import find_bundled
from stackctl.core.errors import ConfigError
from stackctl.core.redaction import redact_url, remember_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from stackctl.config.file import ConfigEntry, ConfigFile
    from stackctl.core.errors import StackctlError

Source = Literal["flag", "environment", "file", "default"]

# Who wrote a connection string. A tenancy's leads to no address of this machine or its link, and takes nothing of the
# operator's along; a `neighbour` is a tenancy whom the operator lets name any address.
Author = Literal["operator", "tenancy", "neighbour"]


CONFIG_VARIABLE = "STACKCTL_CONFIG"
CONFIG_NAME = "stackctl.yaml"


@dataclass(frozen=True)
class Setting:
    """An effective value and where it came from; `origin` names the flag, the variable or the file and line."""

    key: str
    value: Any = field(repr=False)
    source: Source
    origin: str

    def format_value(self) -> str | int | None:
        """The value as `config show` prints it, without secrets."""
        match KEYS[self.key].kind:
            case _ if self.value is None:
                return None
            case "secret" | "secrets":
                return "(set)"
            case "url":
                return redact_url(self.value)
            case "duration":
                return f"{self.value / timedelta(milliseconds=1):g}ms"
            case "path":
                return str(self.value)
            case "names" | "folders":
                return ", ".join(map(str, self.value))
            case "choices":
                return ", ".join(f"{name}: {choice}" for name, choice in self.value.items())
            case _:
                return self.value


@dataclass(frozen=True)
class ExternalDatabase:
    """One external database of one tenancy, as configured.

    `url` for a server, `path` for a file; `mappings` is None when all are to be synced. `base` is the folder that
    relative paths inside `url` are relative to; the origins say where in the file they stand. `author` wrote it.
    `problem`: why it can't be used, raised when it is.
    """

    tenancy: UUID
    id: str
    type: str
    url: str | None = field(repr=False)
    path: Path | None
    mappings: tuple[str, ...] | None
    base: Path
    origin: str = field(compare=False, default="")
    mappings_origin: str = field(compare=False, default="")
    author: Author = "operator"
    problem: StackctlError | None = field(compare=False, default=None)

    @property
    def connection(self) -> str:
        """Where it is, without secrets."""
        return redact_url(self.url) if self.url is not None else str(self.path or "unknown")


@dataclass(frozen=True)
class Flags:
    """What the command line said; None where it said nothing."""

    config: Path | None = None
    database_url: str | None = field(default=None, repr=False)
    stripe_api_key: str | None = field(default=None, repr=False)
    stripe_api_base: str | None = None


class Settings:
    """The effective settings of one process."""

    def __init__(
        self,
        flags: Flags | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.flags = flags or Flags()
        self.environ = os.environ if environ is None else environ
        self.cwd = cwd or Path.cwd()
        self._warn = warn

    # -- the file

    @cached_property
    def config_path(self) -> Path | None:
        """The configuration file that applies, whether or not it can be read; None when there is none."""
        if self.flags.config is not None:
            return self.cwd / self.flags.config
        if named := self.environ.get(CONFIG_VARIABLE):
            return self.cwd / named
        home = self.environ.get("XDG_CONFIG_HOME") or Path(self.environ.get("HOME", "~")).expanduser() / ".config"
        for candidate in (self.cwd / CONFIG_NAME, Path(home) / "stackctl" / CONFIG_NAME):
            if _can_exist(candidate):
                return candidate
        return None

    @cached_property
    def file(self) -> ConfigFile | None:
        """The parsed file; raises ConfigError when it is broken."""
        if self.config_path is None:
            return None
        from stackctl.config.file import load_config  # PyYAML is not loaded where no file is read

        if not (self.flags.config or self.environ.get(CONFIG_VARIABLE)):
            self._refuse_stranger(self.config_path)
        return load_config(self.config_path)

    def _refuse_stranger(self, path: Path) -> None:
        """A file that only lies where we look is obeyed when it is ours or root's, as git does with a repository.

        Whoever wrote it chooses where secrets of this environment are sent.
        """
        ours = {os.geteuid(), 0}
        if os.geteuid() == 0 and (caller := self.environ.get("SUDO_UID", "")).isdigit():
            ours.add(int(caller))
        try:
            found = path.stat()
            owners = {found.st_uid, path.lstat().st_uid}
        except OSError:
            return  # reading it will say so
        if found.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"{path} may be written by everybody and is not used",
                code="config-owner",
                hint=f"remove that permission: chmod o-w {shlex.quote(str(path))}",
            )
        if owners - ours:
            raise ConfigError(
                f"{path} belongs to another user (id {min(owners - ours)}) and is not used",
                code="config-owner",
                hint=f"if you trust it, name it: --config {shlex.quote(str(path))}, or {CONFIG_VARIABLE}",
            )

    @cached_property
    def file_in_effect(self) -> ConfigFile | None:
        """The parsed file, or None where there is none or a broken one does not matter."""
        # The operator who names the database on the command line is not stopped by a broken file that happens to
        # lie around; one that was itself named by a flag is part of the command and must be right.
        try:
            return self.file
        except ConfigError as error:
            if self.flags.database_url is None or self.flags.config is not None:
                raise
            self._warn(f"ignored because --database-url is given: {error.message}")
            return None

    @property
    def base_dir(self) -> Path:
        """The folder that relative paths are relative to: the file's, or the working directory."""
        return self.config_path.parent if self.config_path is not None else self.cwd

    # -- values

    def get(self, key: str) -> Any:
        """The effective value of one key of KEYS, converted: Path, timedelta, int, str or None."""
        return self.setting(key).value

    def setting(self, key: str) -> Setting:
        """The effective value of one key, with where it came from."""
        spec = KEYS[key]
        if spec.flag and (given := getattr(self.flags, spec.flag)) is not None:
            origin = f"--{spec.flag.replace('_', '-')}"
            return Setting(key, self._convert(spec, given, self.cwd, origin), "flag", origin)
        if spec.variable and (given := self.environ.get(spec.variable)):
            return Setting(key, self._convert(spec, given, self.cwd, spec.variable), "environment", spec.variable)
        file = self.file_in_effect
        entry = file.find_entry(key) if file is not None else None
        if file is not None and entry is not None and entry.value is not None:
            return Setting(key, self._from_file(spec, entry, file.path.parent), "file", entry.where)
        default = self._convert(spec, spec.default, self.base_dir, key) if spec.default is not None else None
        return Setting(key, default, "default", "default")

    def database_url(self) -> str:
        """The operated database; ConfigError `no-database` when none is named anywhere."""
        url = self.get("database.url")
        if not url:
            raise ConfigError(
                "no database is named",
                code="no-database",
                hint="pass --database-url, set STACKCTL_DATABASE_URL, or run `stackctl init` for a stackctl.yaml",
            )
        return url

    def mappings_dirs(self) -> tuple[Path, ...]:
        """The folders of mapping files: the configured ones or the bundled one."""
        named = self.get("mappings_dir") or (BUNDLED,)
        return tuple(dict.fromkeys(find_bundled("mappings") if one == BUNDLED else one for one in named))

    def own_migrations_dir(self) -> Path | None:
        """The operator's own folder of migrations, if one is configured. Raises ConfigError when two are."""
        short, full = self.setting("migrations_dir"), self.setting("migrations.dir")
        if short.value and full.value and short.value != full.value:
            raise ConfigError(
                f"{full.origin}: migrations_dir names another folder",
                code="config-conflict",
                hint="keep one of the two",
            )
        return full.value or short.value

    def migrations_dir(self) -> Path:
        """The folder of migrations: the configured one or the bundled one."""
        return self.own_migrations_dir() or find_bundled("migrations")

    def tenancies(self) -> tuple[UUID, ...]:
        """The configured tenancies, in the order of the file."""
        return tuple(self.file.tenancies) if self.file is not None else ()

    def external_databases(self) -> tuple[ExternalDatabase, ...]:
        """Every configured external database, with `${NAME}` still unfilled (see `resolved`)."""
        if self.file is None:
            return ()
        return tuple(
            self._external_database(tenancy, id_, entries)
            for tenancy, databases in self.file.tenancies.items()
            for id_, entries in databases.items()
        )

    def _external_database(self, tenancy: UUID, id_: str, entries: Mapping[str, ConfigEntry]) -> ExternalDatabase:
        assert self.file is not None
        path, names, url = entries.get("path"), entries.get("mappings"), entries.get("url")
        return ExternalDatabase(
            tenancy=tenancy,
            id=id_,
            type=entries["type"].value,
            url=url.value if url else None,
            path=Path(path.value) if path else None,
            mappings=tuple(names.value) if names and names.value is not None else None,
            base=self.file.path.parent,
            origin=(url or path or entries["type"]).where,
            mappings_origin=names.where if names else "",
        )

    def resolve_database(self, database: ExternalDatabase) -> ExternalDatabase:
        """`database` with `${NAME}` filled and its path made absolute; ConfigError for an unset variable.

        What a tenancy wrote is left as it is: the environment is the operator's. Raises the database's `problem`.
        """
        from dataclasses import replace

        if (problem := database.problem) is not None:
            raise type(problem)(problem.lines, code=problem.code, hint=problem.hint, details=problem.details)
        if database.author != "operator":
            return database
        if database.path is not None:
            path = self.expand_references(str(database.path), database.origin)
            spec = DATABASE_KEYS["path"]
            return replace(database, path=self._convert(spec, path, database.base, database.origin))
        url = self.expand_references(database.url or "", database.origin)
        if not url:
            # libpq would take an empty string for "whatever PGHOST and its like say".
            raise ConfigError(f"{database.origin}: the url of {database.id} is empty", code="invalid-value")
        return replace(database, url=self._convert(DATABASE_KEYS["url"], url, database.base, database.origin))

    # -- conversion

    def expand_references(self, text: str, where: str) -> str:
        """`text` with `${NAME}` and `${NAME:-default}` filled from the environment."""

        def fill(name: str, default: str | None) -> str:
            value = self.environ.get(name)
            # As in a shell, `:-` also stands in for a variable that is set but empty.
            if default is not None:
                return value or default
            if value is None:
                raise ConfigError(
                    f"{where}: ${{{name}}} is not set in the environment",
                    code="variable-not-set",
                    hint=f"export {name}=…, or give a default: ${{{name}:-…}}",
                    details={"variable": name},
                )
            return value

        return fill_references(text, fill)

    def _from_file(self, spec: Key, entry: ConfigEntry, base: Path) -> Any:
        if isinstance(entry.value, list) and spec.kind in ("folders", "secrets"):
            named: list[object] = entry.value
            listed = [self.expand_references(str(one), entry.where) for one in named]
            return self._convert(spec, listed, base, entry.where)
        if not is_reference(entry.value):
            return self._convert(spec, entry.value, base, entry.where)
        value = self.expand_references(str(entry.value), entry.where)
        try:
            return self._convert(spec, value, base, entry.where)
        except ConfigError:
            # Whatever the variable holds, it was not meant to be shown.
            remember_secret(value)
            raise

    def _convert(self, spec: Key, value: Any, base: Path, where: str) -> Any:
        try:
            return convert_value(spec, value, base)
        except ValueError as problem:
            raise ConfigError(f"{where}: {problem}", code="invalid-value") from problem


def _can_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # not permitted to look: reading it will say so
