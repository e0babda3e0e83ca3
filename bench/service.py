"""The service at rest and woken: latency of one row, and what idling costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.idle import measure_idle
from bench.latency import GOALS, measure_latency
from bench.scene import Figure, at_most

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bench.scene import Scene

NAMES = ("latency-poll", "latency-notify", "idle")
SAMPLES = 200
IDLE_SECONDS = 20.0
IDLE_GOAL = 2.0  # per cent of one core


def figures(scene: Scene, wanted: Collection[str]) -> Iterator[Figure]:
    """The rows of the table that `wanted` names, of NAMES. Each has a server of its own."""
    for wakeup, (most, longest) in GOALS.items():
        name = f"latency-{wakeup}"
        if name in wanted:
            median, p99 = measure_latency(wakeup, SAMPLES)
            yield Figure(name, f"commit to visible outside, one row, `run` idle before ({wakeup})",
                         f"median {median:.1f} ms, p99 {p99:.1f} ms", None, f"< {most:.0f}, < {longest:.0f} ms",
                         median < most and p99 < longest)  # fmt: skip
    if "idle" in wanted:
        share = measure_idle(IDLE_SECONDS)
        yield at_most("idle", "`run` idle, eleven tables, 50 ms ticks, server included",
                      f"{share:.2f} % of one core", ratio=share, goal=IDLE_GOAL)  # fmt: skip
