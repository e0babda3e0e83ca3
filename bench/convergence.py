"""The randomised convergence test for as long as you like.

    python -m bench.convergence --duration 10m [--seed N]

Prints the seed, what the writers did, the kills by point, the faults, how every process ended, and the comparison of
both sides; exits with 1 when anything did not hold.
"""

from __future__ import annotations

import argparse
import random
import sys

from stackctl.core.durations import parse_duration
from tests.chaos.run import Size, converge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--duration", type=parse_duration, default=parse_duration("1m"))
    parser.add_argument("--writers", type=int, default=Size.writers)
    parser.add_argument("--processes", type=int, default=Size.processes)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    size = Size(
        seconds=chosen.duration.total_seconds(),
        writers=chosen.writers,
        processes=chosen.processes,
        longest=2,
        fresh=True,
    )
    report = converge(chosen.seed, size)
    print(report.text())
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
