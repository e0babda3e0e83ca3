"""The migrations as a git revision has them, and how the folder differs from that."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.migrate.compatibility.report import CompatibilityFinding
from stackctl.migrate.folder import discover
from stackctl.migrate.git import Git, read_first_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stackctl.migrate.files import Migration


@dataclass(frozen=True)
class Baseline:
    """`migrations`: as they stand at the revision, their paths in the working folder. `not_on_branch`: names
    that only the revision has because the branch left it earlier; merging will bring them.
    """

    migrations: tuple[Migration, ...]
    not_on_branch: frozenset[str]


@dataclass(frozen=True)
class FolderChanges:
    """The folder against a baseline. `added` is in order; `out_of_order` are those of it that sort below its last."""

    edited: tuple[Migration, ...]
    deleted: tuple[Migration, ...]
    added: tuple[Migration, ...]
    out_of_order: tuple[Migration, ...]


def read_baseline(directory: Path, ref: str) -> Baseline:
    """The migrations that `ref` (a commit, branch or tag) has in `directory`; none when it has no such folder.

    Raises UsageError (`unknown-git-ref`), StateError (`git-missing`, `not-a-git-repository`, `git-failed`) and
    ConfigError for a file that can't be read as a migration.
    """
    if not directory.is_dir():
        raise ConfigError(
            f"{directory} is not a directory of migrations",
            code="migrations-dir-missing",
            hint="name the folder with --dir, or set migrations_dir in stackctl.yaml",
        )
    git = Git(directory, if_missing="install git: the base is read from it")
    inside = git.run("rev-parse", "--show-prefix")
    if inside.returncode != 0:
        reason = read_first_line(inside).removeprefix("fatal: ")
        raise StateError(
            f"{directory} is not in a git repository that can be read: {reason}",
            code="not-a-git-repository",
            hint="the base is read from git: run this in a checkout, with --dir naming a folder inside it",
        )
    prefix = os.fsdecode(inside.stdout).removesuffix("\n")
    commit = git.find_commit(ref)
    if commit is None:
        raise UsageError(
            f"git does not know the commit {ref}",
            code="unknown-git-ref",
            hint="name a branch, tag or commit; a shallow clone may have to fetch it first: git fetch origin main",
        )
    migrations = _read_migrations(git, commit, prefix, ref)
    fork = git.find_fork(commit)
    had = git.list_blobs(fork, prefix) if fork is not None else None
    not_on_branch = (
        m.name for m in migrations if had is not None and m.path.relative_to(directory).as_posix() not in had
    )
    return Baseline(migrations, frozenset(not_on_branch))


def compare_with_folder(baseline: Baseline, present: Sequence[Migration]) -> FolderChanges:
    """How the folder differs; edits are told by checksum, so comments and line endings do not count."""
    base = {migration.name: migration for migration in baseline.migrations}
    here = {migration.name for migration in present}
    added = tuple(migration for migration in present if migration.name not in base)
    last = max(base, default="")
    return FolderChanges(
        edited=tuple(m for m in present if m.name in base and m.checksum != base[m.name].checksum),
        deleted=tuple(m for name, m in base.items() if name not in here and name not in baseline.not_on_branch),
        added=added,
        out_of_order=tuple(migration for migration in added if migration.name < last),
    )


def find_folder_findings(changes: FolderChanges, ref: str) -> Iterable[CompatibilityFinding]:
    """What is wrong with the files themselves, before any is tried."""
    for migrations, rule, message, suggestion in (
        (
            changes.edited, "file-edited",
            f"differs from {ref}: a database that has applied it keeps the old effect, a new one gets another",
            "restore the file, and write what is to change into a new migration",
        ),
        (
            changes.deleted, "file-deleted",
            f"{ref} has this file and the folder does not: databases that applied it no longer match the files",
            "restore the file; take its effect back in a new migration",
        ),
        (
            changes.out_of_order, "file-out-of-order",
            f"sorts below the last migration of {ref}: databases in use run it after that one, new ones before",
            "give it a timestamp of now: stackctl migrate new writes one",
        ),
    ):  # fmt: skip
        for migration in migrations:
            yield CompatibilityFinding(migration.path, 1, 1, rule, "breaking", message, suggestion)


def _read_migrations(git: Git, commit: str, prefix: str, ref: str) -> tuple[Migration, ...]:
    blobs = git.list_blobs(commit, prefix)
    wanted = {
        name: blob
        for name, blob in blobs.items()
        if name.lower().endswith(".sql") and name.count("/") <= 1 and not name.startswith("../")  # git checks no tree
    }
    with tempfile.TemporaryDirectory(prefix="stackctl-base-") as name:
        folder = Path(name)
        for path, content in zip(wanted, git.read_blobs(list(wanted.values())), strict=True):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        try:
            migrations = discover(folder)
        except ConfigError as error:
            shown = error.message.replace(f"{folder}/", f"{ref}:{prefix}")
            raise ConfigError(shown, code=error.code, hint=error.hint) from error
        return tuple(replace(m, path=git.folder / m.path.relative_to(folder)) for m in migrations)
