"""A command, usually the tests of the version that runs, tried against one database."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from stackctl.core.interrupts import hold_interrupts

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL_LINES = 30
_TAIL_BYTES = 65536
_BASICS = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TERM", "TZ", "TMPDIR")  # and LC_*
_LINGER_SECONDS = 5.0  # for a command to end after it was asked to


@dataclass(frozen=True)
class CommandOutcome:
    """How it ended (a negative code is a signal's), after how many seconds, and the last lines of what it said."""

    exit_code: int
    seconds: float
    tail: str

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def obstacle(self) -> str | None:
        """Why the shell could not run it at all."""
        return {126: "it can't be executed", 127: "there is no such command"}.get(self.exit_code)


def run_command(command: str, url: str, inherited: Sequence[str] = ()) -> CommandOutcome:
    """Run a line of shell with DATABASE_URL and STACKCTL_DATABASE_URL set to `url`.

    It inherits the whole environment, unless `inherited` names what it needs beside the basics. It gets no input, and
    is stopped, with what it started, when the wait for it is interrupted.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not inherited or name in _BASICS or name in inherited or name.startswith("LC_")
    } | {"DATABASE_URL": url, "STACKCTL_DATABASE_URL": url}
    started = time.monotonic()
    # A file and not a pipe: a process that the command leaves behind must not hold us up.
    with tempfile.TemporaryFile() as output:
        process = None
        try:
            with hold_interrupts():
                process = subprocess.Popen(
                    command,
                    shell=True,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            code = process.wait()
        finally:
            if process is not None:
                _stop(process)
        return CommandOutcome(code, time.monotonic() - started, _read_tail(output))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the command's whole group; what it left running would keep the database."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LINGER_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(size - _TAIL_BYTES, 0))
    return "\n".join(output.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])
