"""A mapping file read with the place of everything in it: structure, keys and names, no SQL yet."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import yaml

from stackctl.core.files import STDIN, read_bounded
from stackctl.core.yaml_reader import compose
from stackctl.mapping.model import COLUMN_TYPES, Column, ColumnType, Dependency, Finding, Mapping, Severity, TenancyJoin
from stackctl.mapping.sql_text import quote
from stackctl.mapping.target_statements import STAGING_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

REQUIRED = ("name", "source", "target", "key", "columns", "select")
OPTIONAL = ("depends_on", "filter", "deleted_as", "tenancy", "lookup")
MAX_IDENTIFIER = 63  # bytes; PostgreSQL cuts longer names off silently
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_RESERVED = "_stack_"
# The same in C, where PyYAML was built with it.
_Loader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Document:
    """One file: what was understood of it, what was found wrong, and where everything stands.

    `digest` is the SHA-256 of its bytes, in hexadecimal.
    """

    path: Path
    digest: str = ""
    lines: list[str] = field(default_factory=list[str])
    mapping: Mapping | None = None
    findings: list[Finding] = field(default_factory=list[Finding])
    places: dict[tuple[str, ...], yaml.Node] = field(default_factory=dict[tuple[str, ...], yaml.Node])
    key_places: dict[tuple[str, ...], yaml.Node] = field(default_factory=dict[tuple[str, ...], yaml.Node])

    def add(
        self, rule: str, message: str, at: tuple[int, int], suggestion: str | None = None, severity: Severity = "error"
    ) -> None:
        """Note a finding at `(line, column)`, both from 1."""
        self.findings.append(Finding(str(self.path), *at, rule, severity, message, suggestion))

    def at(self, *path: str, key: bool = False) -> tuple[int, int]:
        """Where the value (or key) at `path` begins; of the nearest parent when there is none."""
        places = self.key_places if key else self.places
        while path and path not in places:
            path = path[:-1]
        mark = places[path].start_mark if path in places else None
        return (mark.line + 1, mark.column + 1) if mark else (1, 1)

    def inside(self, offset: int, *path: str) -> tuple[int, int]:
        """Where the character at `offset` of the text at `path` stands in the file."""
        node = self.places.get(path)
        if not isinstance(node, yaml.ScalarNode):
            return self.at(*path)
        before = node.value[:offset]
        line, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
        if node.style == "|":
            row = node.start_mark.line + 1 + line
            text = node.value.split("\n")[line]
            return row + 1, len(self.lines[row]) - len(text) + column + 1
        if node.start_mark.line == node.end_mark.line:
            return node.start_mark.line + 1, node.start_mark.column + 1 + column + (1 if node.style else 0)
        return self.at(*path)


def suggest_nearest(word: str, known: Iterable[str]) -> str | None:
    """`did you mean …?` for the closest of `known`, or None."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]}?" if close else None


def read_document(path: Path) -> Document:
    """Read one mapping file. `mapping` is None when too little of it holds to go on."""
    document = Document(path)
    try:
        data = read_bounded(path)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        document.add("unreadable", f"cannot read the file: {reason}", (1, 1))
        return document
    document.digest = hashlib.sha256(data).hexdigest()
    document.lines = text.splitlines()
    try:
        root = compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        document.add("yaml", f"not valid YAML: {problem}", (mark.line + 1, mark.column + 1) if mark else (1, 1))
        return document
    if not isinstance(root, yaml.MappingNode):
        document.add("yaml", "a mapping file is a set of `key: value` lines", (1, 1))
        return document
    document.places[()] = root
    top = _entries(document, root, ())
    for key in top:
        if key not in REQUIRED + OPTIONAL:
            document.add(
                "unknown-key",
                f"unknown key {key}",
                document.at(key, key=True),
                suggest_nearest(key, REQUIRED + OPTIONAL) or f"valid keys: {', '.join(REQUIRED + OPTIONAL)}",
            )
    for key in REQUIRED:
        if key not in top:
            document.add("missing-key", f"the key {key} is missing", (1, 1))
    document.mapping = _mapping(document, top)
    return document


def _entries(document: Document, node: yaml.Node | None, path: tuple[str, ...]) -> dict[str, yaml.Node]:
    """The entries of a YAML mapping, their places noted."""
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        document.add("wrong-type", f"{'.'.join(path)} must be a set of `name: value` entries", document.at(*path))
        return {}
    found: dict[str, yaml.Node] = {}
    for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        place = (key.start_mark.line + 1, key.start_mark.column + 1)
        if not isinstance(name, str):
            document.add("wrong-type", "a key must be a name", place)
        elif name in found:
            document.add("duplicate-key", f"{'.'.join((*path, name))} stands here twice", place)
        else:
            found[name] = value
            document.key_places[*path, name] = key
            document.places[*path, name] = value
    return found


def _text(document: Document, node: yaml.Node | None, *path: str) -> str:
    if node is None:
        return ""
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null" or not node.value.strip():
        document.add("wrong-type", f"{'.'.join(path)} must be text", document.at(*path))
        return ""
    return node.value


def _identifier(document: Document, name: str, at: tuple[int, int], limit: int = MAX_IDENTIFIER) -> None:
    if len(name.encode()) > limit:
        document.add("bad-identifier", f"{name[:20]}… is longer than {limit} bytes", at)
    elif '"' in name or "\\" in name or not name.isprintable():
        document.add("bad-identifier", f"{name!r} holds a quote, a backslash or a control character", at)


def _plain(document: Document, name: str, at: tuple[int, int], limit: int = MAX_IDENTIFIER) -> None:
    """A name that stackctl creates outside: lower case letters, digits, underscores, not one of its own."""
    if name and not _NAME.fullmatch(name):
        document.add("bad-identifier", f"{name!r} must be lower case letters, digits and underscores", at)
    elif name.startswith(_RESERVED):
        document.add("bad-identifier", f"names that begin with {_RESERVED} are stackctl's own", at)
    _identifier(document, name, at, limit)


def _pairs(document: Document, node: yaml.Node | None, *path: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in _entries(document, node, path).items():
        _identifier(document, name, document.at(*path, name, key=True))
        pairs[name] = _text(document, value, *path, name)
    return pairs


def _mapping(document: Document, top: dict[str, yaml.Node]) -> Mapping | None:
    name = _text(document, top.get("name"), "name")
    source = _text(document, top.get("source"), "source")
    target = _text(document, top.get("target"), "target")
    _plain(document, name, document.at("name"))
    _plain(document, target, document.at("target"), MAX_IDENTIFIER - len(STAGING_PREFIX))
    _identifier(document, source, document.at("source"))
    if name and name != document.path.stem and document.path != STDIN:
        document.add("name-differs", f"the file {document.path.name} holds a mapping named {name}", document.at("name"))
    columns = _columns(document, top.get("columns"))
    key = _pairs(document, top.get("key"), "key")
    lookup = _pairs(document, top.get("lookup"), "lookup")
    _keys(document, key, lookup, columns)
    deleted_as = _text(document, top.get("deleted_as"), "deleted_as") if "deleted_as" in top else source
    mapping = Mapping(
        name=name,
        source=source,
        target=target,
        key=key,
        columns=columns,
        select=_text(document, top.get("select"), "select"),
        depends_on=_dependencies(document, top.get("depends_on")),
        filter=_text(document, top.get("filter"), "filter") or None,
        deleted_as=deleted_as,
        tenancy=_tenancy(document, top.get("tenancy")),
        file=document.path,
        lookup=lookup,
    )
    return mapping if name and source and target and key and columns and mapping.select else None


def _columns(document: Document, node: yaml.Node | None) -> tuple[Column, ...]:
    columns: list[Column] = []
    for name, value in _entries(document, node, ("columns",)).items():
        _plain(document, name, document.at("columns", name, key=True))
        words = _text(document, value, "columns", name).split()
        if not words:
            continue
        kind, at = words[0], document.at("columns", name)
        if kind not in COLUMN_TYPES:
            valid = suggest_nearest(kind, COLUMN_TYPES) or f"types: {', '.join(COLUMN_TYPES)}"
            document.add("unknown-type", f"unknown type {kind} of column {name}", at, valid)
        elif words[1:] not in ([], ["null"]):
            document.add("unknown-type", f"column {name}: after the type only `null` may stand", at)
        columns.append(Column(name, cast("ColumnType", kind), words[1:] == ["null"]))
    return tuple(columns)


def _keys(document: Document, key: dict[str, str], lookup: dict[str, str], columns: tuple[Column, ...]) -> None:
    by_name = {column.name: column for column in columns}
    for what, names in (("key", key), ("lookup", lookup)):
        for name in names:
            at = document.at(what, name, key=True)
            if name not in by_name:
                message = f"the {what} column {name} is not among the columns"
                document.add(f"{what}-column", message, at, suggest_nearest(name, by_name))
            elif by_name[name].nullable:
                document.add(f"{what}-column", f"the {what} column {name} may not be null", at)
            elif what == "key" and by_name[name].type in ("json", "double"):
                document.add("key-column", f"the key column {name} has a type without exact equality", at)
        if (what,) in document.places and not names:
            document.add(f"{what}-column", f"the {what} names no column", document.at(what))
    if len(lookup) > 1 or (lookup and len(key) > 1):
        document.add("lookup-column", "lookup is one column, beside a key of one column", document.at("lookup"))


def _dependencies(document: Document, node: yaml.Node | None) -> tuple[Dependency, ...]:
    found: list[Dependency] = []
    for table, value in _entries(document, node, ("depends_on",)).items():
        _identifier(document, table, document.at("depends_on", table, key=True))
        on = {
            column: quote(expression) if _BARE.fullmatch(expression) else expression.strip()
            for column, expression in _pairs(document, value, "depends_on", table).items()
        }
        if not on:
            document.add("wrong-type", f"depends_on.{table} names no column", document.at("depends_on", table))
        found.append(Dependency(table, on))
    return tuple(found)


def _tenancy(document: Document, node: yaml.Node | None) -> TenancyJoin | None:
    tables = _entries(document, node, ("tenancy",))
    joins = [TenancyJoin(table, _pairs(document, value, "tenancy", table)) for table, value in tables.items()]
    if node is not None and (len(joins) != 1 or not joins[0].on or joins[0].table != "Tenancy"):
        message = "tenancy must be `Tenancy: {column of Tenancy: column of the source, …}`"
        document.add("wrong-type", message, document.at("tenancy"))
    return joins[0] if len(joins) == 1 and joins[0].on else None
