"""Check mapping files: each by itself, all together, and against the database's catalog."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

from stackctl.mapping.document import Document, read
from stackctl.mapping.model import Finding, Mapping
from stackctl.mapping.selects import check_expression, check_select

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from psycopg import Connection

__all__ = ["Finding", "check", "inspect"]


def check(files: Iterable[Path], *, catalog: Connection[Any] | None = None) -> tuple[Finding, ...]:
    """What is wrong with these mapping files, by file and place.

    With `catalog`, a connection to the operated database whose search path holds the backend's schema, also whether
    tables and columns exist and the server accepts the SQL. Nothing is run there but `LIMIT 0` in a read-only
    transaction that is rolled back.
    """
    return inspect(files, catalog=catalog)[1]


def inspect(
    files: Iterable[Path], *, catalog: Connection[Any] | None = None
) -> tuple[tuple[Mapping, ...], tuple[Finding, ...]]:
    """The mappings that could be understood, and all findings."""
    documents = [read(path) for path in files]
    for document in documents:
        if document.mapping is not None:
            _check_sql(document, document.mapping)
    _check_together(documents)
    if catalog is not None:
        from stackctl.mapping.catalog import check_catalog

        for document in documents:
            if not any(finding.severity == "error" for finding in document.findings):
                check_catalog(document, catalog)
    findings = sorted(
        (finding for document in documents for finding in document.findings), key=lambda f: (f.file, f.line, f.column)
    )
    return tuple(d.mapping for d in documents if d.mapping is not None), tuple(findings)


def _check_sql(document: Document, mapping: Mapping) -> None:
    check_select(document, mapping)
    if mapping.filter is not None:
        check_expression(document, mapping.filter, "filter")
    for dependency in mapping.depends_on:
        for column, expression in dependency.on.items():
            check_expression(document, expression, "depends_on", dependency.table, column)


def _check_together(documents: list[Document]) -> None:
    known = [(document, document.mapping) for document in documents if document.mapping is not None]
    names: dict[str, Mapping] = {}
    targets: dict[str, Mapping] = {}
    for document, mapping in known:
        for what, value, seen in (("name", mapping.name, names), ("target", mapping.target, targets)):
            if value in seen:
                message = f"the {what} {value} is also that of {seen[value].file.name}"
                document.add(f"duplicate-{what}", message, document.at(what))
            seen.setdefault(value, mapping)
    graph: dict[str, set[str]] = {}
    for _, mapping in known:
        graph.setdefault(mapping.source, set()).update(d.table for d in mapping.depends_on)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        edges = set(pairwise(cycle))
        for document, mapping in known:
            for dependency in mapping.depends_on:
                if (mapping.source, dependency.table) in edges or (dependency.table, mapping.source) in edges:
                    message = f"the dependencies go round in a circle: {' → '.join(cycle)}"
                    document.add("cycle", message, document.at("depends_on", dependency.table, key=True))
