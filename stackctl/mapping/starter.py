"""Mapping files to begin with: one with every key explained, and copies of those that come with stackctl."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import ConfigError, StateError, UsageError, unknown_name_error
from stackctl.mapping.document import read_document
from stackctl.mapping.files import list_mapping_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
STARTER = """\
# What this mapping is for. A row of `source` becomes one row of `target` in an external database, or none.
name: {name}
source: ProjectUser                  # the sequenced table
target: {name}                       # the table in the external database
key: {{id: projectUserId}}             # column of that table: column of the source
columns:                             # types, in the order of that table; `null` where a value may be missing
  # uuid text boolean integer bigint double numeric date timestamp timestamptz json
  id: uuid
  display_name: text null
  team_count: bigint
select: |
  SELECT
    u."projectUserId" AS id,
    u."displayName" AS display_name,
    (SELECT count(*) FROM "TeamMember" AS m
     WHERE m."tenancyId" = u."tenancyId" AND m."projectUserId" = u."projectUserId") AS team_count
  FROM "ProjectUser" AS u
  WHERE u."tenancyId" = :tenancy_id
depends_on:                          # a change of these rows sends the source row again
  TeamMember: {{projectUserId: projectUserId}}   # column of TeamMember: column of the source
# filter: '"isAnonymous" = false'    # a condition over the source's own columns, for what never changes in a row
"""


def create_mapping_file(folder: Path, name: str) -> Path:
    """Write `<name>.yaml`, a mapping to be changed. Raises UsageError for a bad name, StateError `file-exists`."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid mapping name",
            code="usage",
            hint="a small letter, then a-z, 0-9 and _: active_users",
        )
    path = folder / f"{name}.yaml"
    _write_new(path, STARTER.format(name=name).encode())
    return path


def find_namesakes(folders: Iterable[Path], name: str) -> list[Path]:
    """The files in these folders whose mapping, or the table that it fills, has the name already."""
    found: list[Path] = []
    for folder in folders:
        with suppress(OSError):  # a folder that is not there is told by what uses it
            found += list_mapping_files(folder)
    read = ((path, read_document(path).mapping) for path in dict.fromkeys(found))
    return [path for path, mapping in read if mapping is not None and name in (mapping.name, mapping.target)]


def export_mappings(folder: Path, names: Sequence[str]) -> list[Path]:
    """Copy these bundled mapping files (all, without names) into the folder, and return what was written.

    A file that is there with the same contents is left alone. Raises UsageError for an unknown name, StateError
    `file-exists` before anything is written.
    """
    bundled = {path.stem: path for path in list_mapping_files(find_bundled("mappings"))}
    for name in names:
        if name not in bundled:
            raise unknown_name_error("mapping", name, bundled)
    wanted = {folder / bundled[name].name: bundled[name].read_bytes() for name in names or bundled}
    missing = {path: data for path, data in wanted.items() if not path.exists()}
    for path, data in wanted.items():
        if path not in missing and path.read_bytes() != data:
            raise _exists_error(path)
    for path, data in missing.items():
        _write_new(path, data)
    return list(missing)


def _write_new(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise _exists_error(path) from None
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written: {os.strerror(error.errno or 0)}",
            code="file-not-written",
            hint="name another folder",
        ) from error


def _exists_error(path: Path) -> StateError:
    return StateError(f"{path} exists", code="file-exists", hint="name another file, or delete this one")
