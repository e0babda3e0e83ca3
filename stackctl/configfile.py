"""stackctl.yaml as it stands in the file: every key known, of the right type, with its line; nothing filled in."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import yaml

from stackctl.errors import ConfigError
from stackctl.settings import DATABASE_KEYS, KEYS, Key, convert, is_reference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One value; `where` is `file:line: key.path`."""

    value: Any
    where: str


@dataclass(frozen=True)
class ConfigFile:
    """The file: plain settings by dotted key, and tenancy → database id → key → entry."""

    path: Path
    entries: dict[str, Entry]
    tenancies: dict[UUID, dict[str, dict[str, Entry]]]

    def entry(self, key: str) -> Entry | None:
        return self.entries.get(key)


def read(path: Path) -> ConfigFile:
    """Parse and check a configuration file; ConfigError names the file, the line and the key's path."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", code="config-not-found", hint="run `stackctl init`, or check --config"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}", code="config-unreadable") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigError(f"{at}: not valid YAML: {problem}", code="config-malformed") from error
    return _Reader(path).read(root)


class _Reader:
    """Walks the node tree, so that every complaint has a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Entry] = {}
        self._tenancies: dict[UUID, dict[str, dict[str, Entry]]] = {}

    def read(self, root: yaml.Node | None) -> ConfigFile:
        if root is not None:
            self._section(root, "")
        version = self._entries.pop("version", None)
        if version is not None and version.value != VERSION:
            raise ConfigError(
                f"{version.where}: this stackctl reads version {VERSION}, got {version.value!r}",
                code="config-version",
            )
        return ConfigFile(self._path, self._entries, self._tenancies)

    def _where(self, node: yaml.Node, key: str) -> str:
        return f"{self._path}:{node.start_mark.line + 1}: {key}" if key else f"{self._path}"

    def _pairs(self, node: yaml.Node, prefix: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        if _is_null(node):
            return []
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                f"{self._where(node, prefix)}: expected a block of keys, got {_describe(node)}",
                code="config-type",
                details={"key": prefix},
            )
        pairs: list[tuple[str, yaml.Node, yaml.Node]] = []
        seen: set[str] = set()
        for name_node, value in node.value:
            name = str(name_node.value)
            if name in seen:
                raise ConfigError(f"{self._where(name_node, prefix + name)}: given twice", code="config-duplicate-key")
            seen.add(name)
            pairs.append((name, name_node, value))
        return pairs

    def _section(self, node: yaml.Node, prefix: str) -> None:
        known = {key[len(prefix) :].split(".")[0] for key in KEYS if key.startswith(prefix)}
        if not prefix:
            known |= {"version", "tenancies"}
        for name, name_node, value in self._pairs(node, prefix):
            key = prefix + name
            if name not in known:
                raise self._unknown(name_node, key, known)
            if key == "tenancies":
                self._read_tenancies(value)
            elif key == "version":
                self._entries[key] = Entry(_construct(value), self._where(name_node, key))
            elif key in KEYS:
                self._entries[key] = self._entry(KEYS[key], name_node, value, key)
            else:
                self._section(value, key + ".")

    def _entry(self, spec: Key, name_node: yaml.Node, value: yaml.Node, key: str) -> Entry:
        entry = Entry(_construct(value), self._where(name_node, key))
        if entry.value is not None and not is_reference(entry.value):
            try:
                convert(spec, entry.value, self._path.parent)
            except ValueError as problem:
                raise ConfigError(f"{entry.where}: {problem}", code="config-type", details={"key": key}) from problem
        return entry

    def _read_tenancies(self, node: yaml.Node) -> None:
        for name, name_node, value in self._pairs(node, "tenancies."):
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
            databases: dict[str, dict[str, Entry]] = {}
            for inner, inner_node, inner_value in self._pairs(value, key + "."):
                if inner != "external_databases":
                    raise self._unknown(inner_node, f"{key}.{inner}", {"external_databases"})
                for id_, id_node, block in self._pairs(inner_value, f"{key}.external_databases."):
                    databases[id_] = self._read_database(id_node, block, f"{key}.external_databases.{id_}")
            self._tenancies[tenancy] = databases

    def _read_database(self, id_node: yaml.Node, node: yaml.Node, key: str) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name, name_node, value in self._pairs(node, key + "."):
            if name not in DATABASE_KEYS:
                raise self._unknown(name_node, f"{key}.{name}", DATABASE_KEYS)
            entries[name] = self._entry(DATABASE_KEYS[name], name_node, value, f"{key}.{name}")
        type_ = entries["type"].value if "type" in entries else None
        if type_ is None:
            raise ConfigError(
                f"{self._where(id_node, key)}: `type` is missing",
                code="config-missing-key",
                hint=f"one of {', '.join(DATABASE_KEYS['type'].choices)}",
            )
        needed, unfit = ("path", "url") if type_ == "sqlite" else ("url", "path")
        if needed not in entries or entries[needed].value is None:
            raise ConfigError(
                f"{self._where(id_node, key)}: a database of type {type_} needs `{needed}`", code="config-missing-key"
            )
        if unfit in entries:
            raise ConfigError(
                f"{entries[unfit].where}: a database of type {type_} has `{needed}`, not `{unfit}`",
                code="config-unknown-key",
            )
        return entries

    def _unknown(self, node: yaml.Node, key: str, known: Iterable[str]) -> ConfigError:
        name = key.rsplit(".", 1)[-1]
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(sorted(known))}"
        return ConfigError(
            f"{self._where(node, key)}: unknown key",
            code="config-unknown-key",
            hint=hint,
            details={"key": key, "nearest": close[0] if close else None},
        )


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _describe(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else f"{node.value!r}"
