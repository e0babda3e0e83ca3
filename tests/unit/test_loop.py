"""When a loop ends."""

from __future__ import annotations

import threading
from datetime import timedelta

from stackctl.sync.loop import Stop


def test_without_a_limit_only_a_signal_ends_it() -> None:
    now = [0.0]
    stop = Stop(clock=lambda: now[0])
    now[0] = 1e12
    assert not stop.requested
    stop.set()
    assert (stop.requested, stop.signalled, stop.reason) == (True, True, "signal")


def test_time_ends_it_and_a_signal_is_the_better_reason() -> None:
    now = [100.0]
    stop = Stop(timedelta(seconds=5), clock=lambda: now[0])
    now[0] = 104.999
    assert not stop.requested
    now[0] = 105.0
    assert (stop.requested, stop.signalled, stop.reason) == (True, False, "max-duration")
    stop.set()
    assert stop.reason == "signal"


def test_a_wait_ends_with_the_signal() -> None:
    stop = Stop()
    waiting = threading.Thread(target=stop.wait, args=(3600,))
    waiting.start()
    stop.set()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_wait_is_no_longer_than_the_time_that_is_left() -> None:
    now = [0.0]
    stop = Stop(timedelta(seconds=1), clock=lambda: now[0])
    now[0] = 2.0
    stop.wait(3600)  # returns
