"""How long `stackctl --help` takes, against the same call of an empty Typer application with as many groups.

Each call is a fresh process; the calls take turns in changing order, so that whatever else the machine does falls on
all alike.

    python bench/startup.py [--rounds N]
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stackctl.cli.commands import COMMANDS

ROUNDS = 25
HELP_GOAL = 1.25  # times the empty application's --help
VERSION_GOAL = 0.5


def empty_application(groups: int) -> str:
    """The source of a Typer application with that many empty groups."""
    lines = ["import typer", "app = typer.Typer(add_completion=False)"]
    for number in range(groups):
        lines += [
            f"group{number} = typer.Typer(help='Group {number}.')",
            f"@group{number}.callback()",
            f"def callback{number}() -> None: ...",
            f"app.add_typer(group{number}, name='group{number}')",
        ]
    return "\n".join([*lines, "app()", ""])


def seconds(command: list[str]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description="Start-up time against an empty Typer application.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds: int = parser.parse_args().rounds

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "empty.py"
        script.write_text(empty_application(len(COMMANDS)))
        stackctl = [sys.executable, str(Path(sys.executable).parent / "stackctl")]
        calls = {
            "empty --help": [sys.executable, str(script), "--help"],
            "empty group --help": [sys.executable, str(script), "group0", "--help"],
            "--version": [*stackctl, "--version"],
            "--help": [*stackctl, "--help"],
            **{f"{name} --help": [*stackctl, name, "--help"] for name in COMMANDS},
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for command in calls.values():
            seconds(command)  # writes the byte code
        for _ in range(rounds):
            for name, command in random.sample(list(calls.items()), len(calls)):
                times[name].append(seconds(command))

    medians = {name: statistics.median(measured) for name, measured in times.items()}
    reached = True
    for name, median in medians.items():
        if name.startswith("empty"):
            print(f"{name:<22} {median * 1000:6.0f} ms")
            continue
        nested = name not in ("--help", "--version")
        ratio = median / medians["empty group --help" if nested else "empty --help"]
        goal = VERSION_GOAL if name == "--version" else HELP_GOAL
        reached &= ratio <= goal
        print(
            f"{name:<22} {median * 1000:6.0f} ms   ratio {ratio:.2f}   goal {goal} {'' if ratio <= goal else 'MISSED'}"
        )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
