"""Git, as far as migrations are compared with a commit: which files it holds, and which have changed since."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Git:
    """The git of one folder. `if_missing`: the hint of StateError `git-missing`, which every method may raise."""

    folder: Path
    if_missing: str

    def run(self, *arguments: str, feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run it in the folder, whatever its exit code; its messages are in English.

        The repository is the one that the folder lies in: a hook sets GIT_DIR, GIT_INDEX_FILE and others for its own.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            return subprocess.run(
                # The repository's configuration may name a program to watch its files; we only read.
                ["git", "-c", "core.fsmonitor=false", "-C", str(self.folder), *arguments],
                input=feed,
                capture_output=True,
                env=environ | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
                check=False,
            )
        except FileNotFoundError as error:
            raise StateError("git is not installed", code="git-missing", hint=self.if_missing) from error

    def find_commit(self, ref: str) -> str | None:
        """The commit that a branch, tag or commit names."""
        return self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")

    def find_fork(self, commit: str) -> str | None:
        """The last commit that HEAD and `commit` share; None in a shallow clone that lacks it."""
        return self._ask("merge-base", commit, "HEAD")

    def list_blobs(self, commit: str, folder: str) -> dict[str, str]:
        """The files below a folder of the repository, by path in it, with their blobs; none when it is not there."""
        tree = self.run("ls-tree", "-r", "-z", "--full-tree", f"{commit}:{folder.rstrip('/')}")
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

    def read_blobs(self, blobs: Sequence[str]) -> list[bytes]:
        """Their contents, in order. Raises StateError (`git-failed`)."""
        if not blobs:
            return []
        done = self.run("cat-file", "--batch", feed="".join(f"{blob}\n" for blob in blobs).encode())
        if done.returncode != 0:
            reason = read_first_line(done).removeprefix("fatal: ")
            raise StateError(f"git can't read the base: {reason}", code="git-failed")
        contents: list[bytes] = []
        at = 0
        for blob in blobs:
            end = done.stdout.index(b"\n", at)
            header = done.stdout[at:end].split(b" ")
            if header[1] != b"blob":
                raise StateError(
                    f"git lacks the object {blob} of the base", code="git-failed", hint="git fetch --refetch"
                )
            size = int(header[2])
            contents.append(done.stdout[end + 1 : end + 1 + size])
            at = end + 1 + size + 1
        return contents

    def list_versions(self, path: str, most: int) -> list[str]:
        """The blobs that a file of the folder had in the commits of HEAD, newest first, at most so many."""
        log = ("log", "--format=", "--raw", "--no-abbrev", "--no-renames", "-z", f"--max-count={most}", "HEAD")
        done = self.run(*log, "--", f":(literal){path}")
        entries = [entry.split(b" ") for entry in done.stdout.split(b"\0") if entry.startswith(b":")]
        return list(dict.fromkeys(entry[3].decode() for entry in entries if entry[3].strip(b"0")))

    def list_changed(self, commit: str) -> set[Path]:
        """The files below the folder that are new or changed since a commit, by path in it; none that git ignores.

        Raises StateError (`git-failed`).
        """
        # `git diff` would hand what may have changed to the programs of filter.*.clean.
        done = self.run("ls-files", "--cached", "--others", "--exclude-standard", "-z")
        if done.returncode != 0:
            raise StateError(f"git ls-files: {read_first_line(done)}", code="git-failed")
        had = self.list_blobs(commit, self._ask("rev-parse", "--show-prefix") or "")
        names = {os.fsdecode(name) for name in done.stdout.split(b"\0")[:-1]}
        return {Path(name) for name in names if self._differs(self.folder / name, had.get(name))}

    def _differs(self, path: Path, blob: str | None) -> bool:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return False  # deleted since
        except OSError:
            return True  # whoever reads it says why
        return blob is None or blob not in (_hash(content, blob), _hash(content.replace(b"\r\n", b"\n"), blob))

    def _ask(self, *arguments: str) -> str | None:
        done = self.run(*arguments)
        return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None


def _hash(content: bytes, like: str) -> str:
    algorithm = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return algorithm(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_first_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why git failed."""
    text = done.stderr.decode(errors="replace").strip()
    return text.splitlines()[0] if text else "git said nothing"
