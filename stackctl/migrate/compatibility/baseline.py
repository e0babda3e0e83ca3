"""The migrations as a git revision has them, and how the folder differs from that."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.migrate import files

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    inside = _git(directory, "rev-parse", "--show-prefix")
    if inside.returncode != 0:
        reason = _first_line(inside.stderr)
        raise StateError(
            f"{directory} is not in a git repository that can be read: {reason}",
            code="not-a-git-repository",
            hint="the base is read from git: run this in a checkout, with --dir naming a folder inside it",
        )
    prefix = os.fsdecode(inside.stdout).removesuffix("\n")
    found = _git(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode != 0:
        raise UsageError(
            f"git knows no commit {ref}",
            code="unknown-git-ref",
            hint="name a branch, tag or commit; a shallow clone may have to fetch it first: git fetch origin main",
        )
    commit = found.stdout.decode().strip()
    migrations = _read_migrations(directory, commit, prefix, ref)
    fork = _git(directory, "merge-base", commit, "HEAD")
    had = _listing(directory, fork.stdout.decode().strip(), prefix) if fork.returncode == 0 else None
    elsewhere = (m.name for m in migrations if had is not None and _format_path(m.path, directory) not in had)
    return Baseline(migrations, frozenset(elsewhere))


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


def _read_migrations(directory: Path, commit: str, prefix: str, ref: str) -> tuple[Migration, ...]:
    blobs = _listing(directory, commit, prefix)
    wanted = {name: blob for name, blob in blobs.items() if name.lower().endswith(".sql") and name.count("/") <= 1}
    with tempfile.TemporaryDirectory(prefix="stackctl-base-") as name:
        folder = Path(name)
        for path, content in zip(wanted, _contents(directory, list(wanted.values())), strict=True):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        try:
            migrations = files.discover(folder)
        except ConfigError as error:
            shown = error.message.replace(f"{folder}/", f"{ref}:{prefix}")
            raise ConfigError(shown, code=error.code, hint=error.hint) from error
        return tuple(replace(m, path=directory / m.path.relative_to(folder)) for m in migrations)


def _format_path(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def _listing(directory: Path, commit: str, prefix: str) -> dict[str, str]:
    """The files below the folder, by path in it, with their blobs."""
    tree = _git(directory, "ls-tree", "-r", "-z", "--full-tree", f"{commit}:{prefix.rstrip('/')}")
    if tree.returncode != 0:
        # The commit is known to exist: it has no such folder yet.
        return {}
    found: dict[str, str] = {}
    for entry in tree.stdout.split(b"\0")[:-1]:
        about, _, path = entry.partition(b"\t")
        mode, _, blob = about.decode().split(" ")
        if mode.startswith("100"):
            found[os.fsdecode(path)] = blob
    return found


def _contents(directory: Path, blobs: Sequence[str]) -> list[bytes]:
    if not blobs:
        return []
    done = _git(directory, "cat-file", "--batch", feed="".join(f"{blob}\n" for blob in blobs).encode())
    if done.returncode != 0:
        raise StateError(f"git can't read the base: {_first_line(done.stderr)}", code="git-failed")
    contents: list[bytes] = []
    at = 0
    for blob in blobs:
        end = done.stdout.index(b"\n", at)
        header = done.stdout[at:end].split(b" ")
        if header[1] != b"blob":
            raise StateError(f"git lacks the object {blob} of the base", code="git-failed", hint="git fetch --refetch")
        size = int(header[2])
        contents.append(done.stdout[end + 1 : end + 1 + size])
        at = end + 1 + size + 1
    return contents


def _git(directory: Path, *arguments: str, feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *arguments],
            input=feed,
            capture_output=True,
            env=os.environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
            check=False,
        )
    except FileNotFoundError as error:
        raise StateError(
            "git is not installed", code="git-missing", hint="install git: the base is read from it"
        ) from error


def _first_line(stderr: bytes) -> str:
    text = stderr.decode(errors="replace").strip()
    return text.splitlines()[0].removeprefix("fatal: ") if text else "git said nothing"
