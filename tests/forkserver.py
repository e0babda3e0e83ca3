"""Imports stackctl once and forks a process for each command: `python -m tests.forkserver FD`, for tests/forked.py.

Each message on the socket is one byte and five descriptors: the request (JSON), the command's stdin, stdout and stderr,
and where its pid and then its exit status are written. The process that serves never runs a command itself: each one
begins in a process in which nothing but imports has happened. When the socket closes, what still runs is killed.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from select import select
from typing import Any

import stackctl

# Whatever reads the environment when it is imported is imported by the command that needs it.
READS_ENVIRONMENT = ("typer.rich_utils",)
# What commands import when they come to it; Stripe's SDK, a module for each kind of object and of service.
LATE = (
    "celpy", "encodings.utf_8_sig", "pydantic.plugin._loader", "typer._adapters", "typer._click.decorators",
    "stripe._account", "stripe._account_service", "stripe._charge", "stripe._customer", "stripe._invoice_payment",
    "stripe._invoice_payment_service", "stripe._object_classes", "stripe._payment_intent",
    "stripe._payment_intent_service", "stripe._payment_method_configuration",
    "stripe._payment_method_configuration_service", "stripe._refund", "stripe._refund_service", "stripe._source",
    "stripe._stripe_client", "stripe._subscription", "stripe._subscription_item", "stripe._subscription_service",
)  # fmt: skip
# What CPython itself reads when it starts is read when this process starts.
_PYTHONS_OWN = ("PYTHON", "LC_", "LANG")


@dataclass(frozen=True)
class Request:
    """`before`: Python to run first, to break something or to set a point at which it dies."""

    arguments: list[str]
    directory: str
    environ: dict[str, str]
    before: str | None


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    _preload()
    request = _serve(control)
    if request is not None:
        _end(_become(request))


def _preload() -> None:
    for module in pkgutil.walk_packages(stackctl.__path__, "stackctl."):
        importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    early = [name for name in READS_ENVIRONMENT if name in sys.modules]
    assert not early, f"imported too early: {early}"
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1  # noqa: PTH208
    assert threads == 1, "a process with threads can't be forked"
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket) -> Request | None:
    """In each forked process its request; None when there are no more."""
    reports: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    while True:
        readable, _, _ = select([control, woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(reports)
        if control not in readable:
            continue
        message, fds, _, _ = socket.recv_fds(control, 1, 5)
        if not message:
            for pid in reports:
                os.kill(pid, signal.SIGKILL)
            return None
        asked, *streams, report = fds
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            for number, fd in enumerate(streams):
                os.dup2(fd, number)
            with os.fdopen(asked, "rb") as file:
                file.seek(0)
                request = Request(**json.load(file))
            for fd in (woken, wake, report, *streams, *reports.values()):
                os.close(fd)
            return request
        for fd in (asked, *streams):
            os.close(fd)
        reports[pid] = report
        with suppress(BrokenPipeError):
            os.write(report, b"%d\n" % pid)


def _reap(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        report = reports.pop(pid)
        with suppress(BrokenPipeError):  # nobody wants to know any more
            os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(report)


def _become(request: Request) -> int:
    """Be the command: its directory, environment, streams and arguments as a new interpreter would find them."""
    for own in _PYTHONS_OWN:
        here = {name: value for name, value in os.environ.items() if name.startswith(own)}
        there = {name: value for name, value in request.environ.items() if name.startswith(own)}
        here.pop("PYTHONUNBUFFERED", None)
        there.pop("PYTHONUNBUFFERED", None)
        assert here == there, f"only an interpreter of its own reads them: {here} {there}"
    os.environ.clear()
    os.environ.update(request.environ)
    time.tzset()
    os.chdir(request.directory)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = bool(request.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout, unbuffered)
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr, unbuffered)
    from stackctl import __main__ as program

    sys.argv = [program.__file__, *request.arguments]
    if request.before is not None:
        exec(request.before, {"__name__": "before"})
    try:
        program.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """As an interpreter ends, but for the tearing down of a thousand modules."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    os._exit(code)


def _stream(fd: int, like: Any, unbuffered: bool) -> Any:
    raw: Any = open(fd, "wb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    lines = not unbuffered and (fd == 2 or os.isatty(fd))
    return io.TextIOWrapper(
        raw, encoding=like.encoding, errors=like.errors, line_buffering=lines, write_through=unbuffered
    )


if __name__ == "__main__":
    main()
