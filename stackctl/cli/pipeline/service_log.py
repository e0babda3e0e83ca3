"""What the loops say while they run: a line, or an object of JSON, for each thing that happened.

As lines, what was done goes to stdout and what is wrong to stderr; as JSON everything goes to stdout.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from stackctl.core.durations import format_duration
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from stackctl.cli.command import Run
    from stackctl.core.errors import StackctlError
    from stackctl.sync.configuration import Reload
    from stackctl.sync.queue.retries import Failure

Level = Literal["info", "warning"]


class ServiceLog:
    """Called by several threads. Its objects go to stdout only where they are the `documents` of the command."""

    def __init__(self, run: Run, *, documents: bool) -> None:
        self._console = run.console
        self._json = run.json_output and documents
        self._line = run.console.info if run.json_output else run.console.line
        self._lock = threading.Lock()
        self._cut_off: dict[int, str] = {}

    def say(self, stage: str, line: str, document: dict[str, Any] | None = None, level: Level = "info") -> None:
        """One event. `document` is its JSON, without time, level and stage; `line` the same for people."""
        now = datetime.now(UTC)
        with self._lock:
            if self._json:
                self._console.json_line(
                    {
                        "time": now,
                        "level": level,
                        "stage": stage,
                        **({"message": line} if document is None else document),
                    }
                )
            elif level == "warning":
                self._console.warn(f"{_time(now)} {line}")
            elif not self._console.quiet:
                self._line(f"{_time(now)} {line}")

    def warned(self, text: str) -> None:
        self.say("run", text, level="warning")

    def reloaded(self, reload: Reload) -> None:
        """The configuration file was read again."""
        document: dict[str, Any] = {"path": reload.path}
        if reload.error is not None:
            line = f"{reload.error.message}; what was loaded stays in use"
            document |= {"error_code": reload.error.code, "message": reload.error.message}
            self.say("configuration", line, document, "warning")
            return
        altered, gone = ([f"{one.tenancy} {one.id}" for one in part] for part in
                         (reload.changes.altered, reload.changes.gone))  # fmt: skip
        said = [f"{what}: {', '.join(names)}" for what, names in (("new or changed", altered), ("gone", gone)) if names]
        self.say(
            "configuration",
            f"{reload.path} was read again; {'; '.join(said) or 'its external databases are the same'}",
            document | {"altered": altered, "gone": gone, "restart_for": reload.restart_for},
        )
        if reload.restart_for:
            names = ", ".join(reload.restart_for)
            self.warned(f"{reload.path}: what was loaded of {names} stays in use: restart to use what it says now")

    def failing(self, failure: Failure) -> None:
        """A database has begun to fail, fails otherwise than before, or was given up."""
        then = (
            f"given up after {format_count(failure.attempts, 'attempt', 'attempts')}, until its tenancy changes or "
            "`stackctl queue retry`"
            if failure.next_attempt_at is None
            else f"next attempt {_time(failure.next_attempt_at)}"
        )
        line = f"{failure.tenancy} {_name(failure)}: failing since {_time(failure.failing_since)}, {then}: "
        self.say("failing", line + failure.error, _document(failure) | {"message": failure.error}, "warning")

    def recovered(self, failure: Failure) -> None:
        """It takes its rows again; `failure` is the last one."""
        lasted = format_duration(max(datetime.now(UTC) - failure.failing_since, timedelta(0)).total_seconds())
        line = f"{failure.tenancy} {_name(failure)}: recovered; it failed for {lasted}"
        document = {"tenancy": failure.tenancy, "database": failure.database, "failing_since": failure.failing_since}
        self.say("recovered", line, document)

    def trouble(self, error: StackctlError) -> None:
        """This thread has lost the operated database, and tries again until it is back."""
        with self._lock:
            known = error.code in self._cut_off.values()
            self._cut_off[threading.get_ident()] = error.code
        if not known:
            document = {"error_code": error.code, "message": error.message}
            self.say("trouble", f"{error.message}; trying again until it answers", document, "warning")

    def regained(self) -> None:
        with self._lock:
            lost = self._cut_off.pop(threading.get_ident(), None) is not None
            back = lost and not self._cut_off
        if back:
            self.say("regained", "the operated database answers again", {})


def _document(failure: Failure) -> dict[str, Any]:
    return {
        "tenancy": failure.tenancy,
        "database": failure.database,
        "mapping": failure.mapping,
        "failing_since": failure.failing_since,
        "attempts": failure.attempts,
        "error_code": failure.code,
        "next_attempt_at": failure.next_attempt_at,
        "dead": failure.dead,
    }


def _time(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _name(failure: Failure) -> str:
    from stackctl.sync.queue.claims import name_database

    return name_database(failure.database)
