from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from stackctl.cli import signals
from stackctl.core.interrupts import hold_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = signals.handle_signals(signal.default_int_handler)
    yield
    signals.restore_handlers(before)


def test_signals_that_follow_soon_are_dropped_and_later_ones_count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    signals.interrupt_on_signals()
    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        now += 14
        signal.raise_signal(signal.SIGTERM)
        now += 2


def test_what_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.interrupt_on_signals()
    signal.raise_signal(signal.SIGHUP)
    with hold_interrupts():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_an_interrupt_waits_for_the_end_of_what_holds_it() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), hold_interrupts():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
