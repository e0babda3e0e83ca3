"""The command in a process of its own that need not import everything first: hundreds of runs in the time of dozens.

`Command` is a `subprocess.Popen` of `stackctl` whose process is forked from one that has imported stackctl and done
nothing else (tests/forkserver.py). Arguments, directory, environment, streams, signals and exit status are real. Where
the interpreter's own start is what a test is about, `fresh=True` has a new one.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackctl.cli.commands import COMMANDS
from stackctl.cli.help import COMMON_CODES, read_docstring
from stackctl.cli.tree import load_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
FRESH = [sys.executable, "-m", "stackctl"]
TIMEOUT = 60.0  # seconds that `run` gives a command

_lock = threading.Lock()
_server: tuple[int, socket.socket] | None = None  # of which process


def _control() -> socket.socket:
    """The socket of this process's server, which ends when the socket closes."""
    global _server
    if _server is None or _server[0] != os.getpid():
        ours, theirs = socket.socketpair()
        with theirs:
            subprocess.Popen(
                [sys.executable, "-m", "tests.forkserver", str(theirs.fileno())],
                cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
            ).returncode = 0  # fmt: skip
        _server = (os.getpid(), ours)
    return _server[1]


def stop() -> None:
    """End this process's server, and what it still runs."""
    global _server
    if _server is not None:
        _server[1].close()
        _server = None


class Command(subprocess.Popen[Any]):
    """`stackctl ARGUMENTS…`. `before`: Python that the process runs first. The other options are Popen's."""

    def __init__(self, arguments: Sequence[object], *, before: str | None = None, **options: Any) -> None:
        self._before = before
        super().__init__([str(argument) for argument in arguments], **options)

    def _execute_child(
        self, args: list[str], executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, *others: Any,
    ) -> None:  # fmt: skip
        streams = [number if fd == -1 else fd for number, fd in enumerate((p2cread, c2pwrite, errwrite))]
        request = {"arguments": args, "directory": str(cwd or Path.cwd()), "before": self._before,
                   "environ": dict(os.environ if env is None else env)}  # fmt: skip
        self._report, report = os.pipe()
        with tempfile.TemporaryFile() as file, _lock:
            file.write(json.dumps(request).encode())
            file.flush()
            socket.send_fds(_control(), [b"x"], [file.fileno(), *streams, report])
        os.close(report)
        self._said = b""
        while b"\n" not in self._said:
            self._hear()
        pid, _, self._said = self._said.partition(b"\n")
        self.pid = int(pid)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _hear(self) -> None:
        said = os.read(self._report, 100)
        assert said, "the server of forked processes has died"
        self._said += said

    def _ended(self, timeout: float | None) -> bool:
        """Whether it has, after `timeout` seconds at the most."""
        # A short command's status may have come along with its pid.
        if self.returncode is None and (self._said or select.select([self._report], [], [], timeout)[0]):
            while b"\n" not in self._said:
                self._hear()
            self.returncode = int(self._said)
            os.close(self._report)
        return self.returncode is not None

    def poll(self) -> int | None:
        self._ended(0)
        return self.returncode

    def _internal_poll(self, *others: Any, **more: Any) -> int | None:
        return self.poll()

    def _wait(self, timeout: float | None) -> int:
        if not self._ended(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        assert self.returncode is not None
        return self.returncode


def start(
    arguments: Sequence[object],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
    before: str | None = None,
    fresh: bool = False,
) -> subprocess.Popen[str]:
    """Begin a command in the directory, with nothing on stdin; `fresh`: by a new interpreter."""
    options: dict[str, Any] = {"cwd": cwd, "env": env, "stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
    if fresh:
        assert before is None
        return subprocess.Popen([*FRESH, *map(str, arguments)], text=True, **options)
    return Command(arguments, before=before, text=True, **options)


def run(arguments: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; the options are those of `start`."""
    with start(arguments, **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT)
        except BaseException:
            process.kill()
            raise
    check_exit_code(arguments, process.returncode, stderr)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_exit_code(arguments: Sequence[object], code: int, stderr: str | None) -> None:
    """An assertion: the command's help names the exit code that it ended with.

    What every command has in common aside: output that can't be written, and what jq makes of a result.
    """
    words = [str(argument) for argument in arguments]
    at, name = next(((at, word) for at, word in enumerate(words) if word in COMMANDS), (0, None))
    if name is None or code < 0 or (code == 0 and {"-h", "--help", "help"} & {*words}):
        return
    inner = getattr(COMMANDS[name], "commands", ())
    path = (name, *[word for word in words[at:] if word in inner][:1])
    unwritten = code == 1 and (stderr is None or "can't be written" in stderr or "--jq" in words)
    assert unwritten or str(code) in _list_exit_codes(*path), (
        f"{code} is not in the help of {' '.join(words)}: {stderr}"
    )


@cache
def _list_exit_codes(name: str, below: str = "") -> set[str]:
    found = load_command(name)
    if hasattr(found, "commands"):
        found = found.get_command(None, below) or found
    _, codes = read_docstring(found.help)
    ranges = [(low, high or low) for low, _, high in (code.partition("-") for code, _ in codes)]
    return {*COMMON_CODES, *(str(code) for low, high in ranges for code in range(int(low), int(high) + 1))}
