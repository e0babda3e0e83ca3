"""The stand-in for Stripe that a folder holds, named `embedded:DIR` in place of an address of Stripe's API.

The objects lie in DIR/objects.json. Every process that asks serves them itself, on a free port of 127.0.0.1 and for as
long as it lives, with a test-mode key that it makes up: nothing has to be kept running, and no other key is sent there.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError
from stackctl.core.files import replace_file
from stackctl.payments.stand_in.answers import Request, StandIn
from stackctl.payments.stand_in.errors import Refused
from stackctl.payments.stand_in.http import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OBJECTS, _LOCK = "objects.json", "lock"
_served: dict[Path, tuple[str, str]] = {}


def write_stand_in(directory: Path, stand_in: StandIn) -> None:
    """Make these the folder's objects. Raises OSError."""
    directory.mkdir(mode=0o700, exist_ok=True)
    with _alone(directory):
        _write(directory, stand_in)


def open_stand_in(directory: Path) -> tuple[str, str]:
    """Serve the folder's objects; returns a key and the address. Raises ConfigError `stand-in-unusable`."""
    if directory not in _served:
        try:
            with _alone(directory):
                _read(directory, StandIn())
        except (OSError, ValueError, LookupError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it can't be read"
            raise ConfigError(
                f"the stand-in for Stripe in {directory} can't be used: {reason}",
                code="stand-in-unusable",
                hint="`stackctl demo DIR` makes a new demo, or set payments.stripe_api_base",
            ) from error
        key = f"sk_test_{secrets.token_hex(16)}"
        server = Server(_Folder(directory, key).serve)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        _served[directory] = key, server.url
    return _served[directory]


class _Folder:
    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._keys = {key: "good"}

    def serve(self, request: Request) -> tuple[int, Any, dict[str, str]]:
        """Answer from what the file holds now: another process may have changed it."""
        with _alone(self._directory):
            stand_in = StandIn(keys=self._keys)
            _read(self._directory, stand_in)
            try:
                answer = stand_in.answer(request)
            except Refused as refused:
                return refused.status, refused.body, {}
            if request.method != "GET":
                _write(self._directory, stand_in)
            return answer


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(directory: Path, stand_in: StandIn) -> None:
    stand_in.restore(json.loads((directory / _OBJECTS).read_text(encoding="utf-8")))


def _write(directory: Path, stand_in: StandIn) -> None:
    replace_file(directory / _OBJECTS, json.dumps(stand_in.to_document()).encode())
