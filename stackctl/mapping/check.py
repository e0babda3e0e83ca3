"""Check mapping files: each by itself, all together, and against the database's catalog."""

from __future__ import annotations

from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

from stackctl.mapping.document import Document, read_document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path
    from typing import Any

    from psycopg import Connection

    from stackctl.mapping.model import Finding, Mapping


def check_mappings(files: Iterable[Path], *, catalog: Connection[Any] | None = None) -> tuple[Finding, ...]:
    """What is wrong with these mapping files, by file and place.

    With `catalog`, a connection to the operated database whose search path holds the backend's schema, also whether
    tables and columns exist and the server accepts the SQL. Nothing is run there but `LIMIT 0` in a read-only
    transaction that is rolled back.
    """
    return collect_findings(inspect_files(files), catalog)


def inspect_files(files: Iterable[Path], *, sound: Collection[str] = ()) -> list[Document]:
    """The files as they could be understood, with what is wrong with each and with all of them together.

    `sound`: digests of files whose SQL is known to have no finding, and need not be parsed again.
    """
    documents = [read_document(path) for path in files]
    for document in documents:
        if document.mapping is not None and document.digest not in sound:
            _check_sql(document, document.mapping)
    _check_together(documents)
    return documents


def collect_findings(documents: Iterable[Document], catalog: Connection[Any] | None = None) -> tuple[Finding, ...]:
    """What was found in the documents and, given a `catalog`, what the database says of those without an error."""
    found: list[Finding] = []
    for document in documents:
        if catalog is not None and not any(finding.severity == "error" for finding in document.findings):
            from stackctl.mapping.check_database import check_against_database

            # A copy: the next database has its own say.
            document = replace(document, findings=list(document.findings))
            check_against_database(document, catalog)
        found += document.findings
    return tuple(sorted(found, key=lambda finding: (finding.file, finding.line, finding.column)))


def _check_sql(document: Document, mapping: Mapping) -> None:
    from stackctl.mapping.check_select import check_expression, check_select

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
                other = seen[value].file
                name = other.name if other.parent == mapping.file.parent else other
                message = f"the {what} {value} is also that of {name}"
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
