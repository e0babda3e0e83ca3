"""Which functions of the core a test calls, in its own process and in the commands that it starts.

A plugin of pytest, and what `sitecustomize` of the copy starts in every other process: the functions of a command are
the test's in whose `tmp_path` it ran. One JSON document a test or process is written to the folder $MUTATION_REACH.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType, FrameType

    import pytest

ROOT = str(Path(__file__).parents[2]) + "/"
_CORE = tuple(ROOT + room for room in ("stackctl/sync/", "stackctl/payments/", "stackctl/migrate/"))
_called: dict[int, CodeType] = {}  # by their ids: a code object's own hash is slow


def _trace(frame: FrameType, event: str, argument: object) -> None:
    _called[id(frame.f_code)] = frame.f_code


def start() -> None:
    threading.settrace(_trace)
    sys.settrace(_trace)


def write(**facts: Any) -> None:
    codes = [code for code in list(_called.values()) if code.co_filename.startswith(_CORE)]
    functions = sorted({f"{code.co_filename.removeprefix(ROOT)}:{code.co_qualname}" for code in codes})
    document = json.dumps(facts | {"functions": functions})
    (Path(os.environ["MUTATION_REACH"]) / uuid.uuid4().hex).write_text(document)


def start_in_command() -> None:
    """Every other process: written when it ends, however it ends but by SIGKILL."""
    import atexit

    leave = os._exit

    def written() -> None:
        write(directory=str(Path.cwd()))

    def leave_written(status: int) -> None:
        written()
        leave(status)

    start()
    atexit.register(written)
    os._exit = leave_written


_directory = ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    _called.clear()
    start()


def pytest_runtest_call(item: pytest.Item) -> None:
    global _directory
    _directory = str(getattr(item, "funcargs", {}).get("tmp_path"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and "PYTEST_XDIST_WORKER" in os.environ:
        write(test=report.nodeid, seconds=report.duration, directory=_directory)
