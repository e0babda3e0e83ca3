"""How the pipeline is, read once for all who ask."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from stackctl.core.bundled import find_bundled
from stackctl.migrate.change_capture import detect_capture
from stackctl.migrate.folder import discover
from stackctl.sync.status import read_status
from stackctl.sync.status_document import status_document

if TYPE_CHECKING:
    from stackctl.migrate.change_capture import CaptureMode
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.status import Status


class Overview:
    """The status, no older than asked for; those who ask while it is being read wait for that reading.

    With many databases that takes minutes: routes have it read by its `thread`, so that no other work waits with them.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self.thread = ThreadPoolExecutor(1, "stackctl-overview")
        self._found: tuple[Status, CaptureMode] | None = None
        self._read_at = float("-inf")

    def read(self, max_age: float) -> Status:
        """Raises what the operated database raises."""
        return self._read(max_age)[0]

    def to_document(self, max_age: float) -> dict[str, Any]:
        """The document of `status --json`."""
        return status_document(*self._read(max_age))

    @property
    def last(self) -> Status | None:
        """The last one that was read, however old."""
        return self._found[0] if self._found is not None else None

    @property
    def age(self) -> float:
        """Seconds since it was read."""
        return time.monotonic() - self._read_at

    def _read(self, max_age: float) -> tuple[Status, CaptureMode]:
        with self._lock:
            if (kept := self._found) is not None and self.age <= max_age:
                return kept
            settings = self._pipeline.settings
            started = time.monotonic()
            with self._pipeline.open_session() as conn:
                found = read_status(self._pipeline, conn)
                captured = detect_capture(
                    conn,
                    discover(find_bundled("migrations")),
                    settings.get("database.schema"),
                    settings.get("database.change_capture"),
                )
            self._found = (found, captured)
            self._read_at = started
            return self._found
