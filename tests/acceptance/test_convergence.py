"""Nothing is lost under fire: writers, processes and faults at random, then both sides are equal.

`STACKCTL_CHAOS_SEED=N` runs one seed of your choice, `python -m bench.convergence` runs for as long as you like.
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
SEED = int(os.environ.get("STACKCTL_CHAOS_SEED", "11"))


# The deadlines inside are far below this; it is for a machine that does ten things at once.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "size", [Size(steps=12), pytest.param(Size(steps=60, fresh=True), marks=pytest.mark.long)], ids=["short", "long"]
)
def test_both_sides_are_equal_after_everything_that_can_happen(size: Size) -> None:
    assert size.steps is not None
    report = converge(SEED, size)
    assert not report.problems, report.text()
    # It would converge as well if nothing had happened.
    killed = report.kills + report.points.total()
    assert report.committed > 6 * size.steps and killed >= size.steps / 6 and report.looks > 10, report.text()
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
