"""Which files to lint: named ones, folders, or what changed since a commit."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.migrate import files
from stackctl.migrate.lint.linter import LintFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


def select_files(paths: Iterable[Path], base: str | None = None) -> list[list[LintFile]]:
    """The migrations that files and folders name, by folder, each after those it follows.

    `base` keeps those that are new or changed since the work forked from that commit. Raises UsageError for a path
    that does not exist or an unknown commit, ConfigError for a folder that can't be read as migrations, StateError
    where there is no git or no repository.
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
        listed = _list_folder(folder) if chosen is None else _list_named(folder, chosen)
        if base is not None:
            new = find_changed_files(folder, base)
            listed = [
                replace(s, report=s.report and s.path.resolve() in new) if s.problem is None else s for s in listed
            ]
        found.append(listed)
    return found


def _list_folder(folder: Path) -> list[LintFile]:
    try:
        return [LintFile(path, name) for name, path in files.list_files(folder)]
    except ConfigError as error:
        if error.code in ("invalid-migration-file-name", "duplicate-migration-version", "migration-file-missing"):
            return [LintFile(folder, "", problem=error)]
        raise


def _list_named(folder: Path, chosen: Collection[Path]) -> list[LintFile]:
    own = {path: path.parent.name if path.name == "migration.sql" else path.stem for path in chosen}
    try:
        beside = {path: name for name, path in files.list_files(folder)}
    except ConfigError:  # a file alone needs no folder in order
        beside = {}
    everything = sorted((beside | own).items(), key=lambda item: item[1])
    return [LintFile(path, name, path in own) for path, name in everything]


def find_changed_files(folder: Path, base: str) -> set[Path]:
    """The files in a git repository's folder that are new or changed since HEAD forked from `base`, absolute."""
    top = Path(_git(folder, "rev-parse", "--show-toplevel")[0])
    if not _ok(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}"):
        raise UsageError(
            f"{base} is no commit in {top}",
            code="unknown-git-ref",
            hint="fetch it first: git fetch origin; then for example --base origin/main",
        )
    fork = _ok(folder, "merge-base", "--end-of-options", base, "HEAD")
    if not fork:
        raise StateError(
            f"{base} and HEAD have no common commit here",
            code="no-merge-base",
            hint="the clone may be shallow: git fetch --unshallow",
        )
    differing = _git(
        top, "diff", "--name-only", "--no-renames", "--diff-filter=d", "-z", fork[0], "--", str(folder.resolve())
    )
    untracked = _git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", str(folder.resolve()))
    return {(top / name).resolve() for name in (*differing, *untracked)}


def _ok(folder: Path, *arguments: str) -> Sequence[str]:
    try:
        return _git(folder, *arguments)
    except StateError as error:
        if error.code in ("git-missing", "not-a-git-repository"):
            raise
        return ()


def _git(folder: Path, *arguments: str) -> list[str]:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StateError("git is not installed", code="git-missing", hint="--base needs it; name the files") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        if "not a git repository" in done.stderr:
            hint = "--base compares with a commit; name the files instead"
            raise StateError(f"{folder} is not in a git repository", code="not-a-git-repository", hint=hint)
        raise StateError(f"git {arguments[0]}: {said[0] if said else done.returncode}", code="git-failed")
    return [part for part in done.stdout.replace("\n", "\0" if "-z" not in arguments else "\n").split("\0") if part]
