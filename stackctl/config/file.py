"""stackctl.yaml as it stands in the file: every key known, of the right type, with its line; nothing filled in."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import yaml

from stackctl.config.keys import DATABASE_KEYS, KEYS, Key, check_references, convert_value, describe_value, is_reference
from stackctl.core.errors import ConfigError
from stackctl.core.files import read_bounded
from stackctl.core.yaml_reader import compose, describe_shape, is_null

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VERSION = 1


@dataclass(frozen=True)
class ConfigEntry:
    """One value; `where` is `file:line: key.path`."""

    value: Any
    where: str


@dataclass(frozen=True)
class ConfigFile:
    """The file: plain settings by dotted key, and tenancy → database id → key → entry."""

    path: Path
    entries: dict[str, ConfigEntry]
    tenancies: dict[UUID, dict[str, dict[str, ConfigEntry]]]

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all, not even its version: as a file that was cut short."""
        return not self.entries and not self.tenancies

    def find_entry(self, key: str) -> ConfigEntry | None:
        return self.entries.get(key)


def load_config(path: Path) -> ConfigFile:
    """Parse and check a configuration file; ConfigError names the file, the line and the key's path."""
    try:
        text = read_bounded(path).decode()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", code="config-not-found", hint="run `stackctl init`, or check --config"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"{path} can't be read: {reason}", code="config-unreadable", hint="give the right file with --config"
        ) from error
    try:
        return _Reader(path).read_file(compose(text))
    except yaml.YAMLError as error:
        # Not chained: PyYAML's own text quotes the line, and the line may hold a secret.
        raise _malformed(path, error) from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply, or inside itself", code="config-malformed") from None


def _malformed(path: Path, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    at = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    hint = "put quotes around a value that holds `: ` or ` #`, or begins with one of * & ! % @ { [ |"
    # What PyYAML takes for the name of an anchor may be the start of an unquoted password.
    problem = re.sub(r"(alias|anchor|tag handle) ['\"].*", r"\1", problem)
    return ConfigError(f"{at}: not valid YAML: {problem}", code="config-malformed", hint=hint)


class _Reader:
    """Walks the node tree, so that every complaint has a line.

    Not `yaml_reader.Reader`: this one ends at the first mistake, with a code and the key's path, follows merge keys,
    and never quotes a line, which may hold a secret.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, ConfigEntry] = {}
        self._tenancies: dict[UUID, dict[str, dict[str, ConfigEntry]]] = {}

    def read_file(self, root: yaml.Node | None) -> ConfigFile:
        if root is not None:
            self._check_version(root)
            self._read_section(root, "")
        return ConfigFile(self._path, self._entries, self._tenancies)

    def _check_version(self, root: yaml.Node) -> None:
        # Before the keys: those of another version may be unknown here.
        for name, name_node, value in self._read_pairs(root, ""):
            version = self._construct(value, "version") if name == "version" else VERSION
            if version != VERSION or isinstance(version, bool):
                got = describe_value(version)
                raise ConfigError(
                    f"{self._where(name_node, name)}: this stackctl reads version {VERSION}, got {got}",
                    code="config-version",
                    hint="write `version: 1`, or use the stackctl that the file was written for",
                )

    def _where(self, node: yaml.Node, key: str) -> str:
        line = node.start_mark.line + 1
        return f"{self._path}:{line}: {key.rstrip('.')}" if key else f"{self._path}:{line}"

    def _construct(self, node: yaml.Node, key: str) -> Any:
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
            # PyYAML raises whatever comes for `!!int x`, an impossible date, an unknown tag. Not chained: see `read`.
            raise ConfigError(
                f"{self._where(node, key)}: not a value that can be read",
                code="config-type",
                hint="put quotes around it, and leave out any `!tag`",
                details={"key": key},
            ) from None
        finally:
            loader.dispose()

    def _read_pairs(self, node: yaml.Node, prefix: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        if is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                f"{self._where(node, prefix)}: expected a block of keys, got {describe_shape(node)}",
                code="config-type",
                details={"key": prefix},
            )
        own: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        merged: list[tuple[str, yaml.Node, yaml.Node]] = []
        for name_node, value in node.value:
            if name_node.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged += self._read_pairs(source, prefix)
                continue
            if not isinstance(name_node, yaml.ScalarNode):
                raise ConfigError(f"{self._where(name_node, prefix)}: a key must be plain text", code="config-type")
            name = str(name_node.value)
            if name in own:
                raise self._duplicate_key(name_node, prefix + name)
            own[name] = (name, name_node, value)
        for name, name_node, value in merged:
            own.setdefault(name, (name, name_node, value))
        return list(own.values())

    def _read_section(self, node: yaml.Node, prefix: str) -> None:
        known = {key[len(prefix) :].split(".")[0] for key in KEYS if key.startswith(prefix)}
        if not prefix:
            known |= {"version", "tenancies"}
        for name, name_node, value in self._read_pairs(node, prefix):
            key = prefix + name
            if name not in known:
                raise self._unknown_key(name_node, key, known)
            if key == "version":
                continue
            if key == "tenancies":
                self._read_tenancies(value)
            elif key in KEYS:
                self._entries[key] = self._read_entry(KEYS[key], name_node, value, key)
            else:
                self._read_section(value, key + ".")

    def _read_entry(
        self, spec: Key, name_node: yaml.Node, value: yaml.Node, key: str, *, literal: bool = False
    ) -> ConfigEntry:
        entry = ConfigEntry(self._construct(value, key), self._where(name_node, key))
        if entry.value is None:
            return entry
        try:
            if isinstance(entry.value, str):
                check_references(entry.value)
            if literal or not is_reference(entry.value):
                convert_value(spec, entry.value, self._path.parent)
        except ValueError as problem:
            raise ConfigError(f"{entry.where}: {problem}", code="config-type", details={"key": key}) from problem
        return entry

    def _read_tenancies(self, node: yaml.Node) -> None:
        for name, name_node, value in self._read_pairs(node, "tenancies."):
            key = f"tenancies.{name}"
            try:
                tenancy = UUID(name)
            except ValueError:
                raise ConfigError(
                    f"{self._where(name_node, key)}: expected a tenancy's id (a UUID), got {name!r}",
                    code="config-type",
                    hint="the ids are in the table Tenancy",
                    details={"key": key},
                ) from None
            if tenancy in self._tenancies:  # the same id, written in another way
                raise self._duplicate_key(name_node, key)
            databases: dict[str, dict[str, ConfigEntry]] = {}
            for inner, inner_node, inner_value in self._read_pairs(value, key + "."):
                if inner != "external_databases":
                    raise self._unknown_key(inner_node, f"{key}.{inner}", {"external_databases"})
                for id_, id_node, block in self._read_pairs(inner_value, f"{key}.external_databases."):
                    databases[id_] = self._read_database(id_node, block, f"{key}.external_databases.{id_}")
            self._tenancies[tenancy] = databases

    def _read_database(self, id_node: yaml.Node, node: yaml.Node, key: str) -> dict[str, ConfigEntry]:
        entries: dict[str, ConfigEntry] = {}
        for name, name_node, value in self._read_pairs(node, key + "."):
            if name not in DATABASE_KEYS:
                raise self._unknown_key(name_node, f"{key}.{name}", DATABASE_KEYS)
            # What a database is and what it takes must be plain from the file.
            literal = name in ("type", "mappings")
            entries[name] = self._read_entry(DATABASE_KEYS[name], name_node, value, f"{key}.{name}", literal=literal)
        type_ = entries["type"].value if "type" in entries else None
        if type_ is None:
            raise ConfigError(
                f"{self._where(id_node, key)}: `type` is missing",
                code="config-missing-key",
                hint=f"one of {', '.join(DATABASE_KEYS['type'].choices)}",
            )
        needed, unfit = ("path", "url") if type_ in ("sqlite", "duckdb") else ("url", "path")
        if needed not in entries or entries[needed].value in (None, ""):
            raise ConfigError(
                f"{self._where(id_node, key)}: a database of type {type_} needs `{needed}`", code="config-missing-key"
            )
        if unfit in entries:
            raise ConfigError(
                f"{entries[unfit].where}: a database of type {type_} has `{needed}`, not `{unfit}`",
                code="config-unknown-key",
            )
        return entries

    def _duplicate_key(self, node: yaml.Node, key: str) -> ConfigError:
        return ConfigError(f"{self._where(node, key)}: given twice", code="config-duplicate-key", details={"key": key})

    def _unknown_key(self, node: yaml.Node, key: str, known: Iterable[str]) -> ConfigError:
        name = key.rsplit(".", 1)[-1]
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(sorted(known))}"
        return ConfigError(
            f"{self._where(node, key)}: unknown key",
            code="config-unknown-key",
            hint=hint,
            details={"key": key, "nearest": close[0] if close else None},
        )
