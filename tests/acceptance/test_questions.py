"""What a command asks on a terminal, and what each answer does."""

from __future__ import annotations

import os
import pty
import select
import sqlite3
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError
from stackctl.sync.queue import retries
from tests import forked
from tests.backend import MINE, Connection, Project, add_user, settle

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPT, END = "\x03", "\x04"
PATIENCE = 1.0  # seconds


def answer(project: Project, reply: str, *arguments: object) -> tuple[int, str]:
    """The exit code, and what a terminal shows, of a command whose question is answered so."""
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"}
    project.write()
    shown = b""
    command = forked.Command(
        arguments, cwd=project.directory, env=environ, stdin=theirs, stdout=theirs, stderr=theirs,
        before="import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)",
    )  # fmt: skip
    asked = False
    with command:
        os.close(theirs)
        try:
            while True:
                if not select.select([ours], [], [], PATIENCE)[0]:
                    # An interrupt between the question and Python's reading of the answer ends nothing until another.
                    if asked and reply == INTERRUPT:
                        os.write(ours, reply.encode())
                    continue
                try:
                    chunk = os.read(ours, 65536)
                except OSError:  # Linux's way to say that the other side is closed
                    break
                shown += chunk
                if not asked and b"[y/N]: " in shown:
                    asked = True
                    os.write(ours, reply.encode())
        except BaseException:
            command.kill()  # it would wait for an answer for ever, and we for it
            raise
    os.close(ours)
    assert asked, shown.decode()
    return command.returncode, shown.decode()


def check_answers(
    project: Project, state: Callable[[], object], *arguments: object, question: str, code: int = 0
) -> None:
    """Only a yes changes anything; `code`: of the command that was let go on."""
    before = state()
    for reply, ends in (("\n", 5), (END, 130), (INTERRUPT, 130)):
        ended, shown = answer(project, reply, *arguments)
        assert (ended, question in shown) == (ends, True), (reply, shown)
        assert ends != 5 or "not confirmed; nothing was changed" in shown
        assert "Traceback" not in shown
        assert state() == before, reply
    ended, shown = answer(project, "y\n", *arguments)
    assert ended == 0, shown
    assert state() != before


def test_a_copy_is_rebuilt_or_taken_over_after_a_yes_alone(project: Project, source: Connection) -> None:
    project.sqlite(MINE)
    add_user(source)
    source.commit()
    settle(project.pipeline())
    path = project.directory / "copy.db"

    def execute(statement: str) -> list[tuple[object, ...]]:
        file = sqlite3.connect(path)
        with file:
            found = file.execute(statement).fetchall()
        file.close()
        return found

    def read() -> object:
        return execute("SELECT id, display_name FROM users"), execute("SELECT mapping_name FROM _stack_sync_metadata")

    execute("UPDATE users SET display_name = 'damaged'")
    question = "Rebuild 1 table? In each, what the mapping no longer has is deleted."
    check_answers(project, read, "sync", "--all", "--rebuild", "users", question=question)
    execute("DELETE FROM _stack_sync_metadata WHERE mapping_name = 'users'")
    question = "Take over 1 table? In each, rows that the source does not have are deleted."
    check_answers(project, read, "sync", "--all", "--mapping", "users", "--adopt", question=question)


def test_what_else_is_asked_is_done_after_a_yes_alone(project: Project, source: Connection) -> None:
    user = add_user(source)
    retries.record_failure(source, MINE, "gone", ServiceError("no", code="unreachable"), scheduled=True)
    source.commit()

    def read() -> object:
        found = [source.execute(text, [user]).fetchall() for text in (
            """SELECT "restrictedByAdmin" FROM "ProjectUser" WHERE "projectUserId" = %s""",
            "SELECT count(*) FROM stackctl.delivery WHERE %s IS NOT NULL",
        )]  # fmt: skip
        source.rollback()
        return found

    check_answers(project, read, "users", "restrict", user, "--reason", "x", question="Restrict ")
    check_answers(project, read, "queue", "forget", "--all", question="Forget 1 ")
