"""The mappings of one folder or several, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import ConfigError, unknown_name_error
from stackctl.mapping.check import collect_findings, inspect_files

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path
    from typing import Any

    from psycopg import Connection

    from stackctl.mapping.document import Document
    from stackctl.mapping.model import Finding, Mapping

MISSING_TABLE_RULES = ("unknown-source", "unknown-dependency", "unknown-table", "not-sequenced")
SHOWN = 3  # findings in the message; `details` holds them all


def list_mapping_files(*folders: Path) -> list[Path]:
    """The mapping files of each folder, by name."""
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix in (".yaml", ".yml") and path.is_file()
    ]


@dataclass(frozen=True)
class MappingSet:
    """Mappings without an error in themselves, by name and in its order."""

    mappings: dict[str, Mapping]
    documents: Sequence[Document]

    def find(self, name: str) -> Mapping:
        """The mapping of that name; UsageError `unknown-mapping` with the nearest one."""
        if name not in self.mappings:
            raise unknown_name_error("mapping", name, self.mappings)
        return self.mappings[name]

    def check(self, catalog: Connection[Any], names: Collection[str], ignored: Collection[str] = ()) -> None:
        """Raise ConfigError `mapping-invalid` where the database does not bear out one of those named.

        Findings of the `ignored` rules do not count.
        """
        named = [one for one in self.documents if one.mapping is not None and one.mapping.name in names]
        refuse_errors(tuple(one for one in collect_findings(named, catalog) if one.rule not in ignored))


def load_mappings(*folders: Path) -> MappingSet:
    """The mappings of these folders together.

    Raises ConfigError `mappings-missing` for a folder without any, `mapping-invalid` where one has an error.
    """
    files: list[Path] = []
    for folder in folders:
        try:
            found = list_mapping_files(folder)
        except OSError as error:
            raise ConfigError(
                f"cannot read the mappings in {folder}: {error.strerror}",
                code="mappings-missing",
                hint="set mappings_dir to a directory of mapping files, or leave it out for the bundled ones",
            ) from error
        if not found:
            raise ConfigError(
                f"no mapping files in {folder}",
                code="mappings-missing",
                hint="set mappings_dir to a directory of <name>.yaml files, or leave it out for the bundled ones",
            )
        files += found
    return _checked(files)


def load_mapping(path: Path) -> Mapping:
    """The mapping of one file. Raises ConfigError `mapping-invalid` where it has an error."""
    return next(iter(_checked([path]).mappings.values()))


def refuse_errors(found: tuple[Finding, ...]) -> None:
    """Raise ConfigError `mapping-invalid` if any of the findings is an error."""
    errors = [finding for finding in found if finding.severity == "error"]
    if not errors:
        return
    shown = "; ".join(f"{f.file}:{f.line}:{f.column}: {f.message}" for f in errors[:SHOWN])
    more = f" (and {len(errors) - SHOWN} more)" if len(errors) > SHOWN else ""
    raise ConfigError(
        shown + more,
        code="mapping-invalid",
        hint=errors[0].suggestion or "run stackctl mappings check",
        details={"findings": [vars(finding) for finding in found]},
    )


def read_sound_digests() -> dict[str, str]:
    """SHA-256 digest → name of the bundled mapping files, as they were when they last passed the whole check.

    A mapping that is one of them byte for byte is taken as it is, which spares every command the SQL parser; any other
    is checked each time. Written by `sha256sum *.yaml > sound.sha256`.
    """
    lines = (find_bundled("mappings") / "sound.sha256").read_text(encoding="utf-8").splitlines()
    return {digest: name for digest, _, name in (line.partition("  ") for line in lines)}


def _checked(files: list[Path]) -> MappingSet:
    documents = inspect_files(files, sound=read_sound_digests())
    refuse_errors(collect_findings(documents))
    mappings = [document.mapping for document in documents if document.mapping is not None]
    return MappingSet({mapping.name: mapping for mapping in sorted(mappings, key=lambda one: one.name)}, documents)
