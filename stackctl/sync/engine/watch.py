"""A look-out for work on one target in this thread: breaks off what hangs, and what a stop should not wait for."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import Stop
    from stackctl.sync.targets.protocol import Target

LOOK_INTERVAL = 0.25  # seconds


@contextmanager
def watched(source: Source, target: Target, stop: Stop, *, grace: float) -> Iterator[None]:
    """Inside, a target that does not answer is aborted, and so are both sides when a stop comes and after `grace`
    seconds the work still goes on.
    """
    done = threading.Event()

    def look() -> None:
        stopped_at: float | None = None
        while not done.wait(LOOK_INTERVAL):
            now = time.monotonic()
            since = target.waiting.since
            if since is not None and now - since > target.waiting.patience:
                target.abort()
            if stop.requested and stopped_at is None:
                stopped_at = now
            if stopped_at is not None and now - stopped_at > grace:
                source.cancel()
                target.abort()

    thread = threading.Thread(target=look, name="stackctl-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
