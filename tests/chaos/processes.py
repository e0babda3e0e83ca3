"""The stackctl processes of a run: started at random, killed at random, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import forked

from .checks import TAGGED
from .faults import NO_SUCH_POINT, NOWHERE, POINTS
from .world import TENANCIES

if TYPE_CHECKING:
    import random

    from .world import World

FAULTS = Path(__file__).with_name("faults.py")
# Done, "a database did not sync", "the operated database is away", "the lock is held", interrupted; and the signals,
# which end a process that has not set up its handlers yet or is just leaving.
EXPECTED = {0, 1, 4, 5, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL}
MAPPINGS = sorted(TAGGED)
ONLY_SYNCED = ("replace_rows", "append_rows", "prepare")  # what a repair never does, and a backfill hardly ever
ENDS_ITSELF = 60.0  # seconds; a loop has an end of its own, so that none outlives a driver that was killed


@dataclass(eq=False)
class Process:
    """One command. `point`: where it was to kill itself. `killed`: the driver did."""

    command: tuple[str, ...]
    point: str | None
    popen: subprocess.Popen[Any]
    log: Path
    killed: bool = False
    stopped: bool = False

    @property
    def name(self) -> str:
        return " ".join(("stackctl", *self.command)) + (f" (to die at: {self.point})" if self.point else "")


def suits(point: str, command: str) -> bool:
    """Whether the command comes by the point."""
    module, function, _ = POINTS[point].split(":")
    if command in ("backfill", "verify"):
        of_source_or_copy = ".targets." in module or module.endswith(("source", "row_stream"))
        return module.endswith(command) or (of_source_or_copy and function.rpartition(".")[2] not in ONLY_SYNCED)
    if module.endswith(("backfill", "verify")):
        return False
    if command == "sequence":
        return module.endswith("sequencer") or function == "enqueue"
    if command == "run":
        return True
    only_polled = module.endswith(("entries", "deliveries")) or function == "claim_sweep"
    return not module.endswith("sequencer") and function != "enqueue" and (command == "poll" or not only_polled)


class Processes:
    """Keeps some running. `ends` counts how they ended, `kills` those killed at random, `points` those at a point.

    With `fresh` each is started by an interpreter of its own.
    """

    def __init__(self, world: World, rng: random.Random, *, fresh: bool = False) -> None:
        self._world, self._rng, self._fresh = world, rng, fresh
        self._logs = world.directory / "logs"
        self._logs.mkdir()
        self._started = 0
        self.running: list[Process] = []
        self.ends: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.gave_up: Counter[str] = Counter()  # what those said that could not reach the operated database
        self.kills = 0
        self.problems: list[str] = []

    def command(self) -> tuple[str, ...]:
        rng = self._rng
        with_copies = [str(t.id) for t in TENANCIES if t.copies]
        loop = ("--max-duration", f"{rng.choice([2, 5, ENDS_ITSELF]):.0f}s")
        return rng.choice([
            ("run", *loop), ("run", *loop), ("run", *loop, "--json"), ("sequence", "--loop", *loop),
            ("poll", "--loop", *loop), ("backfill", rng.choice(MAPPINGS)), ("backfill", "users", "--rate", "200/s"),
            ("verify", "--repair"), ("verify", "--repair", "--mapping", rng.choice(MAPPINGS)), ("sequence",),
            ("poll",), ("sync", "--all"),
            ("sync", rng.choice(with_copies), "--full"), ("sync", rng.choice(with_copies), "--mapping", "users"),
        ])  # fmt: skip

    def start_one(self, probability: float) -> Process:
        """A command; with this `probability` it dies at a point."""
        command = self.command()
        deadly = self._rng.random() < probability
        point = self._rng.choice([p for p in sorted(POINTS) if suits(p, command[0])]) if deadly else None
        return self.start(command, point, self._rng.choice([1, 1, 1, 2, 3, 5]))

    def start(self, command: tuple[str, ...], point: str | None = None, count: int = 1) -> Process:
        self._started += 1
        log = self._logs / f"{self._started:04}.log"
        # The time zones of both must not matter.
        own = {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TZ": "America/St_Johns", "PGTZ": "Australia/Eucla"}
        with log.open("wb") as output:
            options: dict[str, Any] = {
                "cwd": self._world.directory, "env": os.environ | own, "stdin": subprocess.DEVNULL, "stdout": output,
                "stderr": subprocess.STDOUT}  # fmt: skip
            popen: subprocess.Popen[Any]
            if self._fresh:
                program = [sys.executable, "-P", str(FAULTS), point or NOWHERE, str(count)]
                popen = subprocess.Popen([*program, *command], **options)
            else:
                before = "from tests.chaos import faults; faults.shorten_pages()"
                if point is not None:
                    before += f"; faults.arm({point!r}, {count})"
                popen = forked.Command(command, before=before, **options)
        process = Process(command, point, popen, log)
        self.running.append(process)
        return process

    def reap(self) -> None:
        """Take note of those that have ended."""
        for process in list(self.running):
            code = process.popen.poll()
            if code is None:
                continue
            self.running.remove(process)
            self.ends[f"{process.command[0]} {code}"] += 1
            if code == -signal.SIGKILL and not process.killed:
                assert process.point is not None, f"{process.name} was killed by somebody else"
                self.points[process.point] += 1
            said = process.log.read_text(errors="replace")
            if code == NO_SUCH_POINT or code not in EXPECTED or "Traceback" in said:
                self.problems.append(f"{process.name} ended with {code}: {said[-3000:]}")
            else:
                process.log.unlink()
                if code == 4:
                    self.gave_up[
                        f"{process.command[0]}: " + said.strip().splitlines()[-1 if "hint:" not in said else -2][:200]
                    ] += 1

    def victim(self) -> Process:
        """One of the older half: who has just been started has nothing to lose yet."""
        return self._rng.choice(self.running[: len(self.running) // 2 + 1])

    def kill(self, process: Process) -> None:
        process.killed = True
        process.popen.kill()
        self.kills += 1

    def freeze(self, process: Process) -> None:
        """As a machine that hangs, or a laptop that sleeps."""
        process.popen.send_signal(signal.SIGSTOP)
        process.stopped = True

    def thaw(self, process: Process) -> None:
        process.popen.send_signal(signal.SIGCONT)
        process.stopped = False

    def end_all(self, patience: float) -> None:
        """Half are killed, half asked; who does not heed SIGTERM in time is a problem."""
        for process in self.running:
            if process.stopped or self._rng.random() < 0.5:
                self.kill(process)
            else:
                process.popen.terminate()
        deadline = time.monotonic() + patience
        for process in self.running:
            try:
                process.popen.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self.problems.append(
                    f"{process.name} did not end {patience:.0f} s after SIGTERM: {process.log.read_text()[-3000:]}"
                )
                self.kill(process)
                process.popen.wait()
        self.reap()

    def close(self) -> None:
        for process in self.running:
            process.popen.kill()
            process.popen.wait()
        self.running.clear()
