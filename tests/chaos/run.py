"""One run from one seed: writers and processes at work, faults, then quiet, and both sides compared.

The seed fixes what the writers do, which commands are started and which faults strike, in which order. How they
interleave is up to the machine, so a seed that failed may have to be run more than once.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from .checks import Watcher, comparisons, wait_until_clean
from .processes import Processes
from .schedule import Faults
from .workload import Writer
from .world import WITHOUT_DUCKDB, World, world

PATIENCE = 90.0  # seconds for everything to be drained, and for SIGTERM to be heeded
DAMAGED = 10  # times in the end, beside what was damaged on the way
STALLED = 60.0  # seconds without a transaction after which the faults go on all the same


@dataclass(frozen=True)
class Size:
    """How much of everything. The run ends after `steps` faults, or with `seconds` when they have passed."""

    steps: int | None = None
    seconds: float | None = None
    writers: int = 4
    processes: int = 4
    between: int = 40  # transactions from one fault to the next, at most
    longest: float = 1.0  # seconds that a disturbance lasts, at most
    fresh: bool = False  # interpreters for the commands, not forked processes
    deadly: float = 0.7  # of the processes are to die at a point


@dataclass
class Report:
    """What happened. `problems` is empty when everything held."""

    seed: int
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    committed: int = 0
    rolled_back: int = 0
    operations: Counter[str] = field(default_factory=Counter[str])
    refused: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    kills: int = 0
    points: Counter[str] = field(default_factory=Counter[str])
    ends: Counter[str] = field(default_factory=Counter[str])
    gave_up: Counter[str] = field(default_factory=Counter[str])
    looks: int = 0
    errors: Counter[str] = field(default_factory=Counter[str])
    drained_in: float = 0.0
    repaired: int = 0
    compared: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        """For a person; ends with the command that runs it again."""
        lines = [
            f"seed {self.seed}: {'FAILED' if self.problems else 'converged'} after {self.seconds:.0f} s",
            f"transactions: {self.committed} committed, {self.rolled_back} rolled back",
            f"operations: {_list(self.operations)}",
            f"refused by the source: {_list(self.refused)}",
            f"killed -9: {self.kills} at random, {self.points.total()} at a point: {_list(self.points)}",
            f"faults: {_list(self.faults)}",
            f"ends (command, exit code): {_list(self.ends)}",
            f"could not reach the operated database: {_list(self.gave_up)}",
            f"looks at the copies: {self.looks}; failures seen: {_list(self.errors)}",
            f"drained in {self.drained_in:.1f} s, then {self.repaired} rows repaired; both sides compared:",
            *self.compared,
            *([WITHOUT_DUCKDB] if WITHOUT_DUCKDB else []),
            *(f"PROBLEM {problem}" for problem in self.problems),
            f"again: python -m bench.convergence --seed {self.seed} --duration {max(self.seconds, 10):.0f}s",
        ]
        return "\n".join(lines)


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def converge(seed: int, size: Size) -> Report:
    """Run it. Only the harness's own failures are raised; what stackctl did wrong is in the report."""
    report = Report(seed)
    started = time.monotonic()
    # One for each: how long something takes must not change what is drawn elsewhere.
    with world(random.Random(f"{seed}.world")) as place:
        processes = Processes(place, random.Random(f"{seed}.processes"), fresh=size.fresh)
        watcher = Watcher(place)
        faults = Faults(place, processes, watcher, random.Random(f"{seed}.faults"), size.longest)
        stop = threading.Event()
        writers = [Writer(place, f"{seed}.{n}", stop) for n in range(size.writers)]
        try:
            for thread in (*writers, watcher):
                thread.start()
            _trouble(size, random.Random(f"{seed}.steps"), processes, faults, writers, started)
            stop.set()
            for writer in writers:
                writer.join(PATIENCE)
                if writer.failure is not None:
                    raise writer.failure
                assert not writer.is_alive(), "a writer hangs"
            processes.end_all(PATIENCE)
            faults.heal()
            _drain(place, processes, report)
            for _ in range(DAMAGED):
                faults.damage()
            _repair(place, processes, report)
            watcher.stop()
            watcher.look()
            _compare(place, report)
            if touched := faults.touched_foreign():
                report.problems.append(f"{touched} queue entries of another kind were touched")
        finally:
            stop.set()
            processes.close()
    report.seconds = time.monotonic() - started
    report.problems = [*watcher.problems, *processes.problems, *report.problems]
    report.faults, report.kills = faults.counts, processes.kills
    report.points, report.ends, report.gave_up = processes.points, processes.ends, processes.gave_up
    report.looks, report.errors = watcher.looks, watcher.errors
    for writer in writers:
        report.committed += writer.committed
        report.rolled_back += writer.rolled_back
        report.operations += writer.operations
        report.refused += writer.refused
    return report


def _trouble(
    size: Size, rng: random.Random, processes: Processes, faults: Faults, writers: list[Writer], started: float
) -> None:
    """Faults, each after some more transactions: by work rather than time, so that a slow machine sees as much."""
    step = 0
    while (size.steps is None or step < size.steps) and (
        size.seconds is None or time.monotonic() - started < size.seconds
    ):
        step += 1
        while len(processes.running) < size.processes:
            processes.start_one(size.deadly)
        wanted = sum(w.committed for w in writers) + rng.randrange(size.between)
        deadline = time.monotonic() + STALLED
        while sum(w.committed for w in writers) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
            processes.reap()
        processes.reap()
        faults.step()


def _drain(place: World, processes: Processes, report: Report) -> None:
    """One `run` on an ordinary day does what is left, and ends with 0."""
    started = time.monotonic()
    last = processes.start(("run", "--max-duration", f"{2 * PATIENCE:.0f}s"))
    left = wait_until_clean(place, PATIENCE, lambda: last.popen.poll() is None)
    report.drained_in = time.monotonic() - started
    if left:
        report.problems.append(f"not drained: {'; '.join(left[:20])}; run said: {last.log.read_text()[-3000:]}")
    last.popen.terminate()
    try:
        code = last.popen.wait(PATIENCE)
        if code != 0:
            report.problems.append(f"the last run ended with {code}: {last.log.read_text()[-3000:]}")
    except subprocess.TimeoutExpired:
        report.problems.append("the last run did not heed SIGTERM")
    processes.reap()


def _repair(place: World, processes: Processes, report: Report) -> None:
    """What was damaged by hand and not repaired yet; nothing moves any more."""
    repairing = processes.start(("verify", "--repair", "--json"))
    code = repairing.popen.wait(PATIENCE)
    said = repairing.log.read_text()
    if code != 0:
        report.problems.append(f"verify --repair ended with {code}: {said[-3000:]}")
    else:
        checks = json.loads(said.splitlines()[-1])["checks"]  # a slow one has told its progress first
        report.repaired = sum(check["repaired"] for check in checks)
        if moving := sum(check["in_flight"] for check in checks):
            report.problems.append(f"{moving} rows are said to be in flight, and nothing moves")
    processes.reap()


def _compare(place: World, report: Report) -> None:
    for where, compared in comparisons(place).items():
        report.compared.append(
            f"  {where}: {len(compared)} mappings, {sum(c.source_rows for c in compared)} rows, "
            f"{sum(c.target_rows for c in compared)} in the copy, {sum(not c.equal for c in compared)} differ"
        )
        report.problems += [f"not equal: {where}: {c}" for c in compared if not c.equal]
