"""The application: writers whose transactions are short or long, commit out of order, or are rolled back."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from .changes import OPERATIONS, Change

if TYPE_CHECKING:
    from .world import Connection, World

ROLLED_BACK = 0.12  # of the transactions


class Writer(threading.Thread):
    """Transactions until `stop`; counts what it committed, by operation, and what was refused, by error."""

    def __init__(self, world: World, seed: str, stop: threading.Event) -> None:
        super().__init__(name=f"writer {seed}", daemon=True)
        self._world, self._rng, self._stop_asked = world, random.Random(seed), stop
        self.committed = self.rolled_back = 0
        self.operations: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        conn: Connection | None = None
        try:
            while not self._stop_asked.is_set():
                try:
                    if conn is None or conn.closed:
                        conn = self._world.connect("source", name="application", autocommit=False)
                    self._transaction(conn)
                except psycopg.Error as error:
                    self.refused[type(error).__name__] += 1
                    if conn is None or conn.broken:
                        if conn is not None:
                            conn.close()
                        self._stop_asked.wait(0.05)
                    else:
                        with suppress(psycopg.OperationalError):  # the server may go away just now
                            conn.rollback()
        except BaseException as error:  # noqa: BLE001 - for the thread that waits for this one
            self.failure = error
        finally:
            if conn is not None:
                conn.close()

    def _transaction(self, conn: Connection) -> None:
        rng, done = self._rng, list[str]()
        chosen = rng.choices(list(OPERATIONS), list(OPERATIONS.values()), k=rng.choice([1, 1, 1, 2, 3, 8]))
        for operation in chosen:
            operation(Change(conn, rng))
            done.append(operation.__name__)
            if rng.random() < 0.05:  # what others commit meanwhile gets lower ids
                time.sleep(rng.random() * (1.5 if rng.random() < 0.2 else 0.2))
        if rng.random() < ROLLED_BACK:
            conn.rollback()
            self.rolled_back += 1
        else:
            conn.commit()
            self.committed += 1
            self.operations.update(done)
        time.sleep(rng.random() * 0.01)
