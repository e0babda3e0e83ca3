"""Nothing is lost under fire: writers, processes and faults at random, then both sides are equal.

The short version. `STACKCTL_CHAOS_SEED=N` runs one seed of your choice, `python -m bench.convergence` runs for minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import NO_SUCH_POINT, POINTS, resolve
from tests.chaos.run import Size, converge

FAULTS = Path(__file__).parents[1] / "chaos" / "faults.py"
SEED = os.environ.get("STACKCTL_CHAOS_SEED")


# The deadlines inside are far below this; it is for a machine that does ten things at once.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [11])
def test_both_sides_are_equal_after_everything_that_can_happen(seed: int) -> None:
    report = converge(seed, Size(steps=35))
    assert not report.problems, report.text()
    # It would converge as well if nothing had happened.
    assert report.committed > 200 and report.kills + report.points.total() >= 5 and report.looks > 20, report.text()
    assert any(name.startswith("rows ") for name in report.faults), report.text()  # damaged by hand


def test_every_named_point_exists() -> None:
    for point in POINTS:
        resolve(point)


def test_a_point_that_is_gone_is_no_silent_success() -> None:
    for point in ("stackctl.sync.queue.entries:no_such:after", "stackctl.gone:claim:after", "no such name"):
        ended = subprocess.run(
            [sys.executable, "-P", FAULTS, point, "1", "--version"], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == NO_SUCH_POINT
        assert "no such point" in ended.stderr
