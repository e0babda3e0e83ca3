"""How the time of something grows with its size, whatever else the machine does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LINEAR = 9.0  # at the most, of what grows by 4; quadratic is 16


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times as much of the processor's time `work` takes for four times the size. Best of five each."""
    small, large = (min(_measured(work, times) for _ in range(5)) for times in (size, 4 * size))
    return large / small


def _measured(work: Callable[[int], object], size: int) -> float:
    started = time.process_time()
    work(size)
    return time.process_time() - started
