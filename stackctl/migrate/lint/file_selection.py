"""Which files to lint: named ones, folders, or what changed since a commit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.migrate.folder import list_files, read_name, read_number
from stackctl.migrate.git import Git, read_first_line
from stackctl.migrate.lint.linter import LintFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def select_files(paths: Iterable[Path], base: str | None = None, since: int = 0) -> list[list[LintFile]]:
    """The migrations that files and folders name, by folder, each after those it follows.

    `since`: of a folder's files, those of an older version are read and not reported. `base` keeps those that are new
    or changed since the work forked from that commit. Raises UsageError for a path that does not exist or an unknown
    commit, ConfigError for a folder that can't be read as migrations, StateError where there is no git or no
    repository.
    """
    wanted: dict[Path, set[Path] | None] = {}  # by folder: its files, or all
    for path in paths:
        if path.is_dir():
            wanted[path] = None
            continue
        if not path.exists():
            raise UsageError(f"{path} does not exist", code="no-such-file", hint="name .sql files, or folders of them")
        folder = path.parent.parent if path.name == "migration.sql" else path.parent
        chosen = wanted.setdefault(folder, set())
        if chosen is not None:
            chosen.add(path)
    found: list[list[LintFile]] = []
    for folder, chosen in wanted.items():
        listed = _list_folder(folder, since) if chosen is None else _list_named(folder, chosen)
        if base is not None:
            new = find_changed_files(folder, base)
            listed = [
                replace(s, report=s.report and _resolve(s.path) in new) if s.problem is None else s for s in listed
            ]
        found.append(listed)
    return found


def _list_folder(folder: Path, since: int) -> list[LintFile]:
    try:
        return [LintFile(path, name, read_number(name) >= since) for name, path in list_files(folder)]
    except ConfigError as error:
        if error.code in ("invalid-migration-file-name", "duplicate-migration-version", "migration-file-missing"):
            return [LintFile(folder, "", problem=error)]
        raise


def _list_named(folder: Path, chosen: Collection[Path]) -> list[LintFile]:
    own = {path: read_name(path) for path in chosen}
    try:
        beside = {path: name for name, path in list_files(folder)}
    except ConfigError:  # a file alone needs no folder in order
        beside = {}
    everything = sorted((beside | own).items(), key=lambda item: item[1])
    return [LintFile(path, name, path in own) for path, name in everything]


def find_changed_files(folder: Path, base: str) -> set[Path]:
    """The files in a git repository's folder that are new or changed since HEAD forked from `base`, absolute."""
    git = Git(folder, if_missing="--base needs it; name the files")
    found = git.run("rev-parse", "--show-toplevel")
    if b"not a git repository" in found.stderr:
        hint = "--base compares with a commit; name the files instead"
        raise StateError(f"{folder} is not in a git repository", code="not-a-git-repository", hint=hint)
    if found.returncode != 0:
        raise StateError(f"git rev-parse: {read_first_line(found)}", code="git-failed")
    top = Path(os.fsdecode(found.stdout).removesuffix("\n"))
    commit = git.find_commit(base)
    if commit is None:
        raise UsageError(
            f"{base} is not a commit in {top}",
            code="unknown-git-ref",
            hint="fetch it first: git fetch origin; then for example --base origin/main",
        )
    fork = git.find_fork(commit)
    if fork is None:
        raise StateError(
            f"{base} and HEAD have no common commit here",
            code="no-merge-base",
            hint="the clone may be shallow: git fetch --unshallow",
        )
    return {_resolve(folder / name) for name in git.list_changed(fork)}


def _resolve(path: Path) -> Path:
    return Path(os.path.realpath(path))  # which says nothing of links that lead in a circle
