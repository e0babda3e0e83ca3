"""`status --watch` on a real terminal and off one, and `status -q`: none of them ends or hangs with the database."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import ServiceError
from stackctl.sync.queue import retries
from tests.backend import DEADLINE, MINE, add_user, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.backend import Project
    from tests.conftest import Databases

Connection = psycopg.Connection[Any]
ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"
BROKEN = """
import sys
from stackctl.cli.pipeline import watch
def read_status(*arguments):
    raise RuntimeError("boom")
watch.read_status = read_status
from stackctl.__main__ import main
sys.argv[:1] = ["stackctl"]
main()
"""


class Terminal:
    """A command in a terminal of its own; all that it has written."""

    def __init__(self, project: Project, *arguments: str, program: list[str]) -> None:
        project.write()
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, 80))
        self.mode = termios.tcgetattr(self._theirs)
        self.written = b""
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments], cwd=project.directory, start_new_session=True,
            stdin=self._theirs, stdout=self._theirs, stderr=self._theirs,
            env=environ | {"TERM": "xterm-256color", "PYTHONUTF8": "1"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def wait_for(self, pattern: str, again: Callable[[], None] = lambda: None) -> None:
        """Until that is written, behind what was written when this was called; `again` is done at each look."""
        start, until = len(self.written), time.monotonic() + DEADLINE
        while not re.search(pattern.encode(), self.written[start:]):
            assert time.monotonic() < until, (pattern, self.written[start:])
            again()
            self._read(1)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        self.written += (chunk := os.read(self._ours, 65536))
        return bool(chunk)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def resize(self, lines: int, columns: int) -> None:
        termios.tcsetwinsize(self._ours, (lines, columns))

    def end(self) -> int:
        """Its exit code; the terminal must be as it was found."""
        until = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < until, self.written[-500:]
            self._read(0.05)
        while self._read(0):
            pass
        assert self.written.rindex(LEAVE) > self.written.rindex(ENTER)
        assert self.written.rindex(SHOW_CURSOR) > self.written.rindex(b"\x1b[?25l")
        assert termios.tcgetattr(self._theirs) == self.mode
        return self.process.returncode

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(project: Project) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*arguments: str, program: tuple[str, ...] = ("-m", "stackctl")) -> Terminal:
        made.append(Terminal(project.sqlite(MINE), *arguments, program=list(program)))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def switch(databases: Databases, source: Connection, connect: Any) -> Callable[[bool], None]:
    """Closes the operated database to everybody, and opens it again."""
    name, admin = source.info.dbname, connect(databases.url("postgres"), autocommit=True)
    source.close()

    def let(allowed: bool) -> None:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), allowed))
        if not allowed:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    return let


def test_the_board_goes_on_without_its_database_and_gives_the_terminal_back(
    terminal: Callable[..., Terminal], source: Connection, switch: Callable[[bool], None]
) -> None:
    board = terminal("status", "--watch", "--interval", "100ms")
    board.wait_for("queue +empty")
    assert ENTER in board.written
    board.resize(40, 140)
    board.wait_for(str(MINE))
    board.press(b"\x1a")  # Ctrl-Z; the terminal is given back, and taken again when the process goes on
    board.wait_for(r"(?s)\x1b\[\?1049l.*\x1b\[\?1049h")
    # A connection that is just being made is not ended by the first.
    board.wait_for("no news for .*trying on", lambda: switch(False))
    switch(True)
    board.wait_for(r"UTC  every 0.1 s *\x1b?[^A-Za-z]*queue")  # nothing stands between
    board.press(b"q")
    assert board.end() == 0


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm", "bug"])
def test_however_the_board_ends_the_terminal_is_as_it_was(terminal: Callable[..., Terminal], how: str) -> None:
    if how == "bug":
        board = terminal("status", "--watch", program=("-c", BROKEN))
        assert board.end() == 70
        assert b"boom" in board.written[board.written.rindex(LEAVE) :]
        return
    board = terminal("status", "--watch")
    board.wait_for("queue +empty")
    board.press(b"\x03") if how == "ctrl-c" else board.process.send_signal(signal.SIGTERM)
    assert board.end() == 0


def test_off_a_terminal_there_is_a_look_a_line(project: Project, switch: Callable[[bool], None]) -> None:
    watch = project.sqlite(MINE).start("status", "--watch", "--interval", "100ms", "--json")
    assert watch.stdout is not None and watch.stderr is not None
    first = json.loads(watch.stdout.readline())
    switch(False)
    assert "trying on" in watch.stderr.readline()
    switch(True)
    while True:
        later = json.loads(watch.stdout.readline())
        if later["generated_at"] > first["generated_at"]:
            break
    watch.send_signal(signal.SIGTERM)
    assert ended(watch).code == 0


@pytest.mark.parametrize("wrong", [["--interval", "1s"], ["--watch", "--interval", "1ms"], ["--watch", "--interval=x"],
                                   ["--watch", "--check"]])  # fmt: skip
def test_what_does_not_go_together_is_refused(project: Project, wrong: list[str]) -> None:
    assert project.run("status", *wrong, "--json").json["error"]["code"] == "usage"


def test_one_line_for_a_prompt(project: Project, source: Connection) -> None:
    line = project.sqlite(MINE).run("status", "-q")
    assert (line.code, line.stdout, line.stderr) == (0, "ok\n", "")
    add_user(source)
    source.commit()
    project.run("sequence")
    for name, due in (("gone", True), ("dead", False), ("paused", True)):
        retries.record_failure(source, MINE, name, ServiceError("no", code="unreachable"), scheduled=True)
        if not due:
            source.execute("UPDATE stackctl.delivery SET next_attempt_at = NULL WHERE database_id = %s", [name])
    source.execute("INSERT INTO stackctl.pause (database_id, paused_by) VALUES ('paused', 'ada')")
    source.commit()
    project.run("fuse", "off", "poller")
    shown = project.run("status", "-q").stdout
    assert re.fullmatch(r"poller off, 1 failing, 1 given up, 1 paused, 1 queued for .+\n", shown)
    refused = project.run("status", "-q", "--tenancy", "nobody")
    assert (refused.code, refused.stdout) == (2, "unknown-tenancy\n")


def test_a_prompt_waits_for_no_server_that_hangs(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://a@127.0.0.1:{mute.getsockname()[1]}/a"
        before = time.monotonic()
        done = project.run("status", "-q", "--database-url", url)
    assert (done.code, done.stdout) == (4, "no answer\n") and "2 s" in done.stderr
    assert time.monotonic() - before < 8
    done = project.run("status", "-q", "--database-url", url)  # nobody listens any more
    assert (done.code, done.stdout) == (4, "unreachable\n")
