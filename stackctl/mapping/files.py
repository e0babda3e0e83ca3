"""The mappings of a directory, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.errors import ConfigError
from stackctl.mapping.check import inspect

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from psycopg import Connection

    from stackctl.mapping.model import Finding, Mapping

SHOWN = 3  # findings in the message; `details` holds them all


def paths(directory: Path) -> list[Path]:
    """The mapping files of a directory, by name."""
    return sorted(path for path in directory.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())


def load(directory: Path, *, catalog: Connection[Any] | None = None) -> dict[str, Mapping]:
    """The mappings of `directory` by name, in order of name; checked against the database too, given its `catalog`.

    Raises ConfigError `mappings-missing` where there are none, `mapping-invalid` where one has an error.
    """
    try:
        files = paths(directory)
    except OSError as error:
        raise ConfigError(
            f"cannot read the mappings in {directory}: {error.strerror}",
            code="mappings-missing",
            hint="set mappings_dir to a directory of mapping files, or leave it out for the bundled ones",
        ) from error
    if not files:
        raise ConfigError(
            f"no mapping files in {directory}",
            code="mappings-missing",
            hint="set mappings_dir to a directory of <name>.yaml files, or leave it out for the bundled ones",
        )
    return {mapping.name: mapping for mapping in _checked(files, catalog)}


def load_file(path: Path) -> Mapping:
    """The mapping of one file. Raises ConfigError `mapping-invalid` where it has an error."""
    return _checked([path])[0]


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raise ConfigError `mapping-invalid` if any of the findings is an error."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    shown = "; ".join(f"{f.file}:{f.line}:{f.column}: {f.message}" for f in errors[:SHOWN])
    more = f" (and {len(errors) - SHOWN} more)" if len(errors) > SHOWN else ""
    raise ConfigError(
        shown + more,
        code="mapping-invalid",
        hint=errors[0].suggestion or "run stackctl mappings check",
        details={"findings": [vars(finding) for finding in findings]},
    )


def _checked(files: list[Path], catalog: Connection[Any] | None = None) -> list[Mapping]:
    mappings, findings = inspect(files, catalog=catalog)
    refuse(findings)
    return sorted(mappings, key=lambda mapping: mapping.name)
