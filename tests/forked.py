"""The command in a process of its own that need not import everything first: hundreds of runs in the time of dozens."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.backend import DEADLINE, Outcome
from tests.chaos import faults

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

_NUMBERS = itertools.count()
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["stackctl.cli.app", "stackctl.cli.refunds.create", "stackctl.payments.refunds.execute", "stackctl.sync.pipeline",
     "tests.forked"]
)  # fmt: skip


def _command(directory: str, output: str, errors: str, point: str | None, arguments: Sequence[str]) -> None:
    from stackctl.cli.app import run

    os.chdir(directory)
    for number, name in ((0, os.devnull), (1, output), (2, errors)):
        opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if point is not None:
        faults.arm(point, 1)
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True)
class Started:
    """`point`: where it is to die."""

    process: ForkServerProcess
    output: Path
    errors: Path
    point: str | None

    def ended(self) -> Outcome:
        self.process.join(4 * DEADLINE)
        code = self.process.exitcode
        self.process.kill()
        assert code is not None, f"{self.process} hangs"
        outcome = Outcome(code, self.output.read_text(), self.errors.read_text())
        self.output.unlink()
        self.errors.unlink()
        return outcome


def start(directory: Path, arguments: Sequence[object], point: str | None = None) -> Started:
    """Begin a command in the directory, to die at a point or not."""
    number = next(_NUMBERS)
    output, errors = directory / f".{number}.out", directory / f".{number}.err"
    for path in (output, errors):
        path.touch()
    texts = [str(argument) for argument in arguments]
    process = _CONTEXT.Process(target=_command, args=(str(directory), str(output), str(errors), point, texts))
    process.start()
    return Started(process, output, errors, point)
