"""stackctl mappings list"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.mappings.shared import mapping_document, read_mappings
from stackctl.core.tables import Column


@command(example="stackctl mappings list --json\nstackctl mappings list -o name", lists=True)
def list_(run: Run) -> None:
    """List the mappings: source, table, key, and what their rows depend on.

    Prints a row for each mapping: its source, its key, and its table where that has another name.
    Exit codes: 0 printed; 3 a mapping file is bad.
    """
    mappings = read_mappings(run).mappings.values()
    run.finish_list(
        {"mappings": [mapping_document(mapping) for mapping in mappings]},
        (
            "mapping",
            "source",
            Column("target", spare=3),
            Column("key", folds=True),
            Column("columns", right=True, spare=1),
            Column("depends on", folds=True, spare=2),
        ),
        [
            (
                m.name,
                m.source,
                m.target,
                ", ".join(m.key),
                len(m.columns),
                ", ".join(dependency.table for dependency in m.depends_on) or None,
            )
            for m in mappings
        ],
        empty="there are no mappings",
    )
