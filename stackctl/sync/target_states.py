"""How external databases stand, asked side by side: each has a short time to answer, and none waits for another."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from typing import TYPE_CHECKING

from stackctl.core.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.targets.protocol import Target, TargetState

ANSWER_LIMIT = 2.0  # seconds from the first step towards a database to its answer
FILE_LIMIT = 0.5  # seconds of these for whoever holds its file
SIDE_BY_SIDE = 32  # databases that are asked at a time


class _Question:
    """One database that is asked. The answer is None for a file that is not there yet."""

    def __init__(self, database: ExternalDatabase) -> None:
        self.database = database
        self.answer: Future[TargetState | None] = Future()
        self.target: Target | None = None
        # A server of our own is started first, where it has to be, and is not left half started.
        patient = (database.url or "").startswith("embedded")
        self.deadline = time.monotonic() + (threading.TIMEOUT_MAX if patient else ANSWER_LIMIT)

    def expire(self) -> None:
        """Go on without the answer; what waits for it is broken off where that is possible, and left alone else."""
        error = ServiceError(
            f"the external database {self.database.id} ({self.database.connection}) did not answer in"
            f" {ANSWER_LIMIT:g} s",
            code="no-answer",
            hint="check that its server runs and is not overloaded, that nothing holds its tables, and the network",
        )
        with suppress(InvalidStateError):  # it answered at the last moment
            self.answer.set_exception(error)
        if self.target is not None:
            self.target.abort()


class StateReader:
    """Asks from the moment it is made. Its threads do not hold up an interrupt."""

    def __init__(self, pipeline: Pipeline, databases: Sequence[ExternalDatabase]) -> None:
        self._pipeline = pipeline
        self._waiting = deque(databases)
        self._asked: dict[tuple[UUID, str], _Question] = {}
        self._open: list[_Question] = []
        self._ask_more()

    def read(self, database: ExternalDatabase) -> TargetState | None:
        """The state of one of the databases; None for a file that is not there yet, which this does not create.

        Raises what stands in the way: StateError `lock-timeout` for a file that another process holds, ServiceError
        `no-answer`, and what resolving and opening raise.
        """
        key = (database.tenancy, database.id)
        while (question := self._asked.get(key)) is None or not question.answer.done():
            left = min(one.deadline for one in self._open) - time.monotonic()
            wait([one.answer for one in self._open], timeout=max(left, 0), return_when=FIRST_COMPLETED)
            for one in self._open:
                if time.monotonic() >= one.deadline and not one.answer.done():
                    one.expire()
            self._ask_more()
        return question.answer.result()

    def _ask_more(self) -> None:
        self._open = [one for one in self._open if not one.answer.done()]
        while self._waiting and len(self._open) < SIDE_BY_SIDE:
            question = _Question(self._waiting.popleft())
            self._open.append(question)
            self._asked[question.database.tenancy, question.database.id] = question
            # A thread that is inside of DuckDB when the process ends would abort it: that one is waited for, which the
            # time that it has for the file's lock bounds.
            waited_for = question.database.type == "duckdb"
            threading.Thread(target=self._ask, args=(question,), name="stackctl-ask", daemon=not waited_for).start()

    def _ask(self, question: _Question) -> None:
        try:
            answer = self._read(question)
        except BaseException as error:  # noqa: BLE001 - raised where the answer is read
            with suppress(InvalidStateError):
                question.answer.set_exception(error)
        else:
            with suppress(InvalidStateError):
                question.answer.set_result(answer)

    def _read(self, question: _Question) -> TargetState | None:
        resolved = self._pipeline.settings.resolve_database(question.database)
        if resolved.path is not None and not resolved.path.exists():
            return None
        question.target = target = self._pipeline.open_target(question.database, busy_timeout=FILE_LIMIT)
        try:
            return target.read_state(self._pipeline.compile_mappings(question.database))
        finally:
            target.close()
