"""What goes wrong with the nth request: named as the tests name it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "drop-before", "drop-after", "delay", "slow-bytes", "302", "401", "403", "429", "409", "500-before", "500-after",
    "html-502", "empty-200",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass
class Fault:
    """Strikes once: at the `nth` request from now whose method and path begin so. `seconds`: of a delay, and between
    two bytes of an answer."""

    kind: Kind
    nth: int = 1
    method: str = ""
    path: str = ""
    seconds: float = 1.0


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append(fault)

    @property
    def waiting(self) -> int:
        """How many have not struck yet."""
        with self._lock:
            return len(self._waiting)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def due(self, method: str, path: str) -> Fault | None:
        """The fault for this request; each that matches comes one request nearer."""
        with self._lock:
            struck: Fault | None = None
            for fault in list(self._waiting):
                if method.startswith(fault.method) and path.startswith(fault.path):
                    fault.nth -= 1
                    if fault.nth <= 0 and struck is None:
                        struck = fault
                        self._waiting.remove(fault)
            return struck
