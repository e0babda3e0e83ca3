"""What the commands of stackctl mappings share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.cli.command import Run
    from stackctl.mapping.files import MappingSet
    from stackctl.mapping.model import Mapping

Name = Annotated[str, typer.Argument(metavar="MAPPING", help="Name of a mapping.")]


def read_mappings(run: Run) -> MappingSet:
    """The configured mappings. Raises ConfigError `mappings-missing`, `mapping-invalid`."""
    from stackctl.mapping.files import load_mappings

    return load_mappings(*run.settings.mappings_dirs())


def show_next_step(run: Run, folder: Path) -> None:
    """How a folder that is not in use yet is taken into use."""
    if folder.absolute() not in {one.absolute() for one in run.settings.mappings_dirs()}:
        run.console.info(
            f"next: `mappings_dir: {folder}` in stackctl.yaml; a list, [bundled, {folder}], if all its names are new"
        )


def mapping_document(mapping: Mapping) -> dict[str, Any]:
    return {
        "name": mapping.name,
        "source": mapping.source,
        "target": mapping.target,
        "key": mapping.key,
        "columns": [asdict(column) for column in mapping.columns],
        "depends_on": [dependency.table for dependency in mapping.depends_on],
        "file": mapping.file,
    }
