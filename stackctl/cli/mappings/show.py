"""stackctl mappings show"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.mappings.shared import Name, mapping_document, read_mappings


@command(example="stackctl mappings show users")
def show(run: Run, mapping: Name) -> None:
    """Print a mapping's file.

    Prints the file as it is.
    Exit codes: 0 printed; 2 no such mapping.
    """
    from stackctl.core.documents import Exact

    found = read_mappings(run).find(mapping)
    text = found.file.read_bytes().decode()
    run.finish(mapping_document(found) | {"text": Exact(text)}, lambda: run.console.document(text))
