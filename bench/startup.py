"""How long commands take to start, against the least that a Typer application can take for the like.

On the demo's database, with its server running. Each call is a fresh process; the calls take turns in changing order,
so that whatever else the machine does falls on all alike. Two limits, measured in the same run: an empty Typer
application with as many groups as stackctl, and one that imports psycopg and runs one query.

    python -m bench.startup [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stackctl.cli.commands import COMMANDS, Group
from stackctl.postgres import embedded

ROUNDS = 25
STACKCTL = [sys.executable, str(Path(sys.executable).parent / "stackctl")]

# What is measured: the limit that it is held against, and how many times that it may take.
GOALS: dict[str, tuple[str, float]] = {
    "--version": ("empty --help", 0.5),
    "--help": ("empty --help", 1.25),
    **{f"{name} --help": ("empty group --help", 1.1) for name, entry in COMMANDS.items() if isinstance(entry, Group)},
    **dict.fromkeys(
        ("fuse show", "queue list", "users show nobody@example.com", "refunds list", "migrate status"),
        ("one query", 1.3),
    ),
    "status": ("one query", 2.0),
    "rules list": ("empty --help", 1.2),
    "config show": ("empty --help", 1.2),
}
RULES = """
rules:
  block-disposable: {priority: 100, condition: 'emailDomain in ["tempmail.com"]', action: {type: reject}}
"""


def empty_application() -> str:
    """The source of a Typer application with as many empty groups as stackctl has commands and groups."""
    lines = ["import typer", "app = typer.Typer(add_completion=False)"]
    for number in range(len(COMMANDS)):
        lines += [
            f"group{number} = typer.Typer(help='Group {number}.')",
            f"@group{number}.callback()",
            f"def callback{number}() -> None: ...",
            f"app.add_typer(group{number}, name='group{number}')",
        ]
    return "\n".join([*lines, "app()", ""])


def query_application(url: str) -> str:
    """The source of a Typer application that runs one query."""
    return f"""
import psycopg, typer
app = typer.Typer(add_completion=False)
@app.command()
def query() -> None:
    with psycopg.connect({url!r}) as conn:
        print(conn.execute("SELECT 1").fetchone())
app()
"""


def seconds(command: list[str], folder: Path) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    taken = time.perf_counter() - started
    # Nobody is called nobody@example.com: 2.
    assert done.returncode in (0, 2), (command, done.stderr)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up time against the least that Typer and psycopg take.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds: int = parser.parse_args().rounds
    os.environ |= {"TERM": "dumb", "NO_COLOR": "1"}

    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        folder = Path(name) / "demo"
        subprocess.run([*STACKCTL, "demo", str(folder), "--quiet"], check=True, stdout=subprocess.DEVNULL)
        (folder / "sign-up-rules.yaml").write_text(RULES)
        server = embedded.attach(folder / "postgres")
        try:
            scripts = {"empty": empty_application(), "query": query_application(server.url("backend"))}
            for script, source in scripts.items():
                (folder / f"{script}.py").write_text(source)
            calls = {
                "empty --help": [sys.executable, "empty.py", "--help"],
                "empty group --help": [sys.executable, "empty.py", "group0", "--help"],
                "one query": [sys.executable, "query.py"],
                **{line: [*STACKCTL, *line.split()] for line in GOALS},
            }
            times: dict[str, list[float]] = {call: [] for call in calls}
            for command in calls.values():
                seconds(command, folder)  # writes the byte code
            for _ in range(rounds):
                for call, command in random.sample(list(calls.items()), len(calls)):
                    times[call].append(seconds(command, folder))
        finally:
            server.release()

    medians = {call: statistics.median(measured) for call, measured in times.items()}
    for call, median in medians.items():
        line = f"{call:<32} {median * 1000:6.0f} ms"
        if call in GOALS:
            limit, goal = GOALS[call]
            ratio = median / medians[limit]
            line += f"   {ratio:5.2f} times {limit:<19} goal {goal}{'' if ratio <= goal else '   MISSED'}"
        print(line)


if __name__ == "__main__":
    main()
