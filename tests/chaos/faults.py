"""Run stackctl and kill it -9 at a named point: `python tests/chaos/faults.py POINT N COMMAND…`.

The process dies the Nth time that it comes by the point; with the point `-` it does not. A point is a name from POINTS,
or spelled `module:function:when`. A point that the installed package does not have ends the process with NO_SUCH_POINT,
so that a renamed function is noticed.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO_SUCH_POINT = 97
NOWHERE = "-"

# before, after: the call. inside: between two items of an iterator. entered, left: a context manager.
_DUCKDB = {
    "DuckDB: in the middle of a stream": "stackctl.sync.engine.row_stream:RowStream.read_csv:inside",
    "DuckDB: batch written": "stackctl.sync.targets.duckdb:DuckdbTarget.apply_batch:after",
    "DuckDB: cursor moved, not committed": "stackctl.sync.targets.duckdb:DuckdbTarget.advance_cursor:after",
    "DuckDB: committed": "stackctl.sync.targets.duckdb:DuckdbTarget.lock_cursor:left",
}
POINTS = {
    "stamped, not committed": "stackctl.sync.queue.entries:enqueue:after",
    "stamped, not queued": "stackctl.sync.queue.entries:enqueue:before",
    "batch of the sequencer committed": "stackctl.sync.changes.sequencer:Sequencer.stamp_batch:after",
    "entry taken, not committed": "stackctl.sync.queue.entries:take:after",
    "databases due, not committed": "stackctl.sync.queue.deliveries:add:after",
    "database leased": "stackctl.sync.queue.deliveries:lease:after",
    "leases renewed": "stackctl.sync.queue.deliveries:renew:after",
    "before the lease is given back": "stackctl.sync.queue.deliveries:reopen:before",
    "leases recovered": "stackctl.sync.queue.deliveries:recover_expired:after",
    "retry taken": "stackctl.sync.queue.deliveries:add_due_retries:after",
    "tables made": "stackctl.sync.targets.postgres:PostgresTarget.prepare:after",
    "cursor locked": "stackctl.sync.targets.postgres:PostgresTarget.lock_cursor:entered",
    "in the middle of a stream": "stackctl.sync.engine.row_stream:RowStream.read_binary:inside",
    "in the middle of a stream of tuples": "stackctl.sync.engine.row_stream:RowStream.read_chunks:inside",
    "batch written": "stackctl.sync.targets.postgres:PostgresTarget.apply_batch:after",
    "load written": "stackctl.sync.targets.postgres:PostgresTarget.replace_rows:after",
    "page of a load written": "stackctl.sync.targets.postgres:PostgresTarget.append_rows:after",
    "load in pages: cursor moved, not committed": "stackctl.sync.engine.paged_load:PagedLoad.send_page:after",
    "before the cursor moves": "stackctl.sync.targets.postgres:PostgresTarget.advance_cursor:before",
    "cursor moved, not committed": "stackctl.sync.targets.postgres:PostgresTarget.advance_cursor:after",
    "target committed": "stackctl.sync.targets.postgres:PostgresTarget.lock_cursor:left",
    "refused rows forgotten": "stackctl.sync.engine.rejected_rows:forget_rows:after",
    "SQLite: cursor moved, not committed": "stackctl.sync.targets.sqlite:SqliteTarget.advance_cursor:after",
    "SQLite: load written": "stackctl.sync.targets.sqlite:SqliteTarget.replace_rows:after",
    "SQLite: committed": "stackctl.sync.targets.sqlite:SqliteTarget.lock_cursor:left",
    "failure not recorded": "stackctl.sync.queue.retries:record_failure:before",
    "failure recorded, delivery not finished": "stackctl.sync.queue.retries:record_failure:after",
    "success recorded, delivery not finished": "stackctl.sync.queue.retries:record_success:after",
    "before the delivery is finished": "stackctl.sync.queue.deliveries:finish:before",
    "delivery finished, not committed": "stackctl.sync.queue.deliveries:finish:after",
    "swept": "stackctl.sync.queue.retries:claim_sweep:after",
    "sent again, progress not recorded": "stackctl.sync.check.backfill:_Walk._record_progress:before",
    "sent again, progress recorded": "stackctl.sync.check.backfill:_Walk._record_progress:after",
    "of a changed mapping, page sent again": "stackctl.sync.engine.resend:Resend._send_page:after",
    "of a changed mapping, all pages sent again": "stackctl.sync.engine.resend:Resend._finish:before",
    "differences found": "stackctl.sync.engine.comparison:CopyComparison._find_candidates:after",
    "repaired, not committed": "stackctl.sync.engine.repair:repair_rows:after",
    "repaired, counted": "stackctl.sync.engine.comparison:CopyComparison._compare_again:after",
} | (_DUCKDB if find_spec("duckdb") else {})


class _Countdown:
    """Kills this process at the Nth call, in whichever thread."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def resolve(spec: str) -> tuple[Any, str, str]:
    """Whose attribute the point is, its name and `when`; LookupError when there is no such function."""
    try:
        module, path, when = POINTS.get(spec, spec).split(":")
        owner: Any = importlib.import_module(module)
        *above, name = path.split(".")
        for part in above:
            owner = vars(owner)[part]
        found = inspect.getattr_static(owner, name)  # its own, or of a class above it
    except (ImportError, AttributeError, KeyError, ValueError) as error:
        raise LookupError(f"no such point: {spec} ({type(error).__name__}: {error})") from error
    if not callable(found) or when not in ("before", "after", "inside", "entered", "left"):
        raise LookupError(f"no such point: {spec}")
    if when in ("entered", "left") and not inspect.isgeneratorfunction(inspect.unwrap(found)):
        raise LookupError(f"not a context manager: {spec}")
    return owner, name, when


def arm(spec: str, count: int) -> None:
    """Kill this process at the `count`th time that it comes by the point."""
    owner, name, when = resolve(spec)
    setattr(owner, name, _deadly(getattr(owner, name), when, _Countdown(count)))


def shorten_pages() -> None:
    """Let loads come in pages although nobody here has many rows."""
    from stackctl.sync.engine import paged_load

    for name, rows in (("WHOLE_ROWS", 3), ("PAGE_ROWS", 2)):
        vars(paged_load)[name]  # KeyError: it has another name now
        setattr(paged_load, name, rows)


def _deadly(function: Callable[..., Any], when: str, count: _Countdown) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            count()
        result = function(*args, **kwargs)
        if when == "after":
            count()
        return result

    @functools.wraps(function)
    def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for item in function(*args, **kwargs):
            count()
            yield item

    @contextmanager
    def hold(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with function(*args, **kwargs) as held:
            if when == "entered":
                count()
            yield held
        if when == "left":
            count()

    if when == "inside":
        return iterate
    return hold if when in ("entered", "left") else call


def main() -> None:
    spec, count, *command = sys.argv[1:]
    shorten_pages()
    try:
        if spec != NOWHERE:
            arm(spec, int(count))
    except LookupError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_SUCH_POINT)
    from stackctl.__main__ import main as stackctl

    sys.argv = ["stackctl", *command]
    stackctl()


if __name__ == "__main__":
    main()
