"""`python -m tests.mutation`: a random sample of mutants, each before the tests that call what it changed."""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import psycopg

from stackctl.postgres import embedded
from tests.conftest import FAST, find_memory, migrated
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.tree import copy, environment

BESIDE_THE_RUNNER = ("statement_text", "adopt", "verify")
EXPLAINED = Path(__file__).with_name("survivors.txt")
# Test files that hardly come by the core, or take long.
ELSEWHERE = re.compile(
    "test_(lint|rules|compat|completions|convergence|redaction|demo|docs|package|startup|imports|schema_dump|users"
    "|embedded|harness|stripe_fake|lock_forecast|migrate_bundled|migrate_check|mappings|bad_input|command_line)"
)


@dataclass(frozen=True)
class Reached:
    """A test: how long it takes, and which functions of the core it calls."""

    test: str
    seconds: float
    functions: frozenset[str]


def core(root: Path) -> list[str]:
    """The files that are changed: the sync, the payments, and the runner of migrations."""
    rooms = [*(root / "stackctl/sync").rglob("*.*"), *(root / "stackctl/payments").rglob("*.*")]
    rooms += (root / "stackctl/migrate/runner").rglob("*.*")
    rooms += [path for path in (root / "stackctl/migrate").glob("*.py") if path.stem in BESIDE_THE_RUNNER]
    return sorted(str(path.relative_to(root)) for path in rooms if path.suffix in (".py", ".sql"))


def sample(root: Path, count: int, seed: int, only: str) -> list[Mutant]:
    """So many of each file as its share of lines, in an order in which any beginning is a sample as well."""
    chosen: list[tuple[float, Mutant]] = []
    lines = {path: (root / path).read_text().count("\n") for path in core(root)}
    for path in lines:
        chance = random.Random(f"{seed} {path}")
        found = mutants(root, path)
        many = min(ceil(count * lines[path] / sum(lines.values())), len(found))
        picked = chance.sample(found, many)
        chosen += [((number + chance.random()) / many, one) for number, one in enumerate(picked)]
    return [one for _, one in sorted(chosen, key=lambda pair: pair[0]) if only in one.key]


def record(place: Path, environ: dict[str, str]) -> None:
    """Run the core's tests once, and note what each calls."""
    (place / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'PYTEST_XDIST_WORKER' in os.environ and not any('pytest' in one for one in sys.orig_argv):\n"
        "    from tests.mutation import reach\n"
        "    reach.start_in_command()\n"
    )
    files = [str(path) for path in sorted(place.glob("tests/*/test_*.py")) if not ELSEWHERE.match(path.name)]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "tests.mutation.reach", "-p", "no:cacheprovider"]
    subprocess.run([*command, *files], cwd=place, env=environ, check=False)


def reached(folder: Path) -> list[Reached]:
    documents = [json.loads(path.read_text()) for path in folder.iterdir()]
    functions: dict[str, set[str]] = {}
    for one in documents:
        functions.setdefault(one["directory"], set()).update(
            name.replace(".<locals>", "") for name in one["functions"] if not name.endswith("<module>")
        )
    own = [one for one in documents if "test" in one]
    without = {"None", ""}
    return [
        Reached(
            one["test"],
            one["seconds"],
            frozenset(functions[one["directory"]] if one["directory"] not in without else one["functions"]),
        )
        for one in own
    ]


def tests_of(mutant: Mutant, root: Path, known: list[Reached], budget: float) -> list[Reached]:
    """Those that call the function, or one that sends the statement: first the quick ones of a file that is about it,
    which is one of whose tests many call it."""
    places = {f"{mutant.path}:{mutant.place}"}
    if mutant.path.endswith(".sql"):
        places = set(_senders(mutant, root))
    found = [one for one in known if places & one.functions]
    if not found:
        path = re.sub(r"\.sql$", ".py", mutant.path)
        found = [one for one in known if any(name.startswith(path + ":") for name in one.functions)]
    chosen: list[Reached] = []
    of_file = Counter(one.test.partition("::")[0] for one in known)
    calling = Counter(one.test.partition("::")[0] for one in found)
    share = {file: many / of_file[file] for file, many in calling.items()}
    for one in sorted(found, key=lambda one: one.seconds / share[one.test.partition("::")[0]] ** 2):
        budget -= one.seconds
        if chosen and budget < 0:
            break
        chosen.append(one)
    return chosen


def _senders(mutant: Mutant, root: Path) -> list[str]:
    found: list[str] = []
    for path in sorted((root / mutant.path).parent.rglob("*.py")):
        place: list[tuple[int, str]] = []
        for line in path.read_text().splitlines():
            if match := re.match(r"( *)(?:def|class) (\w+)", line):
                place = [one for one in place if one[0] < len(match[1])] + [(len(match[1]), match[2])]
            if f'"{mutant.place}"' in line and place:
                found.append(f"{path.relative_to(root)}:" + ".".join(name for _, name in place))
    return found


def run(mutant: Mutant, tests: list[Reached], place: Path, environ: dict[str, str]) -> tuple[str, str]:
    """Killed, survived or timed out; and what noticed it."""
    if not tests:
        return "survived", "no test calls it"
    file = place / mutant.path
    before = file.read_text()
    mutant.apply(place)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--timeout", "100"]
    process = subprocess.Popen([*command, *(one.test for one in tests)], cwd=place, env=environ, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    try:
        said, _ = process.communicate(timeout=90 + 4 * sum(one.seconds for one in tests))
    except subprocess.TimeoutExpired:
        return "timed out", ""
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        file.write_text(before)
    noticed = next((line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))), said[-300:])
    if process.returncode in (4, 5):
        raise RuntimeError(said)
    if process.returncode == 0:
        return "survived", f"{len(tests)} tests"
    return "timed out" if "Timeout (>" in said else "killed", noticed


def earlier(file: Path | None) -> dict[str, tuple[str, str]]:
    """How mutants of an earlier run ended."""
    if file is None or not file.exists():
        return {}
    return {key: (end, noticed) for key, end, noticed in map(json.loads, file.read_text().splitlines())}


def explained() -> dict[str, str]:
    """The known survivors, each with the reason why no test can or need notice it."""
    found: dict[str, str] = {}
    key = ""
    for line in EXPLAINED.read_text().splitlines():
        if line.startswith(" "):
            found[key] = f"{found.get(key, '')} {line.strip()}".strip()
        elif not line.startswith("#"):
            key = line
    return found


def report(results: list[tuple[Mutant, str, str]]) -> float:
    """Print the score per area; killed (a hang is noticed, too) of all but those explained."""
    reasons = explained()
    areas: dict[str, Counter[str]] = {}
    for mutant, end, noticed in results:
        known = end == "survived" and mutant.key in reasons
        for area in (mutant.path.rpartition("/")[0].removeprefix("stackctl/"), "all"):
            areas.setdefault(area, Counter())["explained" if known else end] += 1
        if end == "survived" and not known:
            print(f"{mutant.key}\n    line {mutant.line}; {noticed}")
    score = 0.0
    print(f"\n{'area':22} {'mutants':>7} {'killed':>7} {'timed out':>9} {'explained':>9} {'survived':>8} {'score':>6}")
    for area, counts in sorted(areas.items(), key=lambda pair: (pair[0] == "all", pair[0])):
        counted = counts.total() - counts["explained"]
        score = (counts["killed"] + counts["timed out"]) / counted if counted else 1.0
        ends = (counts["killed"], counts["timed out"], counts["explained"], counts["survived"])
        print(f"{area:22} {counts.total():7} {ends[0]:7} {ends[1]:9} {ends[2]:9} {ends[3]:8} {score:6.2f}")
    return score


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--count", type=int, default=200, help="mutants, about")
    parser.add_argument("--only", default="", help="those whose name contains this")
    parser.add_argument("--minutes", type=float, default=600, help="begin none after this time")
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests for each mutant")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--reach", type=Path, help="a folder that keeps what each test calls from run to run")
    parser.add_argument(
        "--results", type=Path, help="a file that keeps how each ended; survivors are tried again, last"
    )
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mt-", dir=find_memory()) as scratch:
        root = copy(options.commit, Path(scratch) / "0")
        folder = options.reach or Path(scratch) / "reach"
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            record(root, environment(root, dict(os.environ)) | {"MUTATION_REACH": str(folder)})
            (root / "sitecustomize.py").unlink()
        known = reached(folder)
        drawn = sample(root, options.count, options.seed, options.only)
        before = earlier(options.results)
        noticed = {key for key, (end, _) in before.items() if end != "survived"}
        results = [(one, *before[one.key]) for one in drawn if one.key in noticed]
        waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
        for one in sorted(drawn, key=lambda one: one.key in before):
            if one.key not in noticed:
                waiting.put(one)
        print(f"seed {options.seed}: {len(drawn)} mutants, {len(known)} tests", flush=True)

        def work(place: Path) -> None:
            environ = environment(place, dict(os.environ)) | {"MUTATION_TEMPLATE": "template_migrated"}
            server = embedded.attach(Path(environ["MUTATION_SERVER"]), options=FAST)
            server.ensure_database("template_migrated")
            with psycopg.connect(server.url("template_migrated"), autocommit=True) as conn:
                migrated(conn)
            with suppress(queue.Empty):
                while time.monotonic() - started < options.minutes * 60:
                    mutant = waiting.get_nowait()
                    begun = time.monotonic()
                    end, noticed = run(mutant, tests_of(mutant, place, known, options.budget), place, environ)
                    results.append((mutant, end, noticed))
                    if options.results:
                        with options.results.open("a") as file:
                            print(json.dumps([mutant.key, end, noticed]), file=file)
                    print(f"{end:9} {time.monotonic() - begun:5.0f} s  {mutant.key}\n    {noticed}", flush=True)
            server.release()

        places = [root, *(copy(options.commit, Path(scratch) / str(n)) for n in range(1, options.workers))]
        threads = [threading.Thread(target=work, args=(place,)) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0 if report(results) >= 0.85 else 1


if __name__ == "__main__":
    sys.exit(main())
