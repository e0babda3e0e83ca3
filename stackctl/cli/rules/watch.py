"""`rules test --watch`: runs the suites again when they, the rules or their lists change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stackctl.core.errors import ConfigError, StackctlError
from stackctl.core.streams import has_reader
from stackctl.rules import suites
from stackctl.rules.rules_file import find_list_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stackctl.cli.command import Run

_TICK = 0.2  # seconds between two looks at the files
_SHARE = 10  # times as long as a look took is waited at least until the next one


def watch_suites(
    run: Run, named: Sequence[Path], rules_of: Callable[[Path], Path | None], run_once: Callable[[], None]
) -> None:
    """Until Ctrl-C, or the reader of stdout leaves; an error is shown, and ends when a file is fixed.

    `rules_of`: the rules file of a suite that does not name one itself.
    """
    known: object = None  # as the last run found them
    last: object = None
    others: set[Path] = set()
    while has_reader():
        began = time.monotonic()
        paths = named or suites.find_suites(Path())
        stamps = _read_stamps({*paths, *others})
        took = time.monotonic() - began
        if stamps != known and (known is None or stamps == last):  # at rest: an editor has saved all it wants to
            # The stamps are older than what the run reads: what changes meanwhile is seen at the next look.
            others |= _find_others(paths, rules_of)
            known = _read_stamps({*paths, *others})
            run.console.clear()
            try:
                run_once()
            except StackctlError as error:
                run.console.error(error)
            except typer.Exit:
                pass
            run.console.info("waiting for a change; Ctrl-C ends")
        last = stamps
        time.sleep(max(_TICK, _SHARE * took))


def _find_others(paths: Iterable[Path], rules_of: Callable[[Path], Path | None]) -> set[Path]:
    """The rules files of the suites, and the lists of these."""
    found: set[Path] = set()
    for path in paths:
        try:
            rules = suites.load_suite(path, rules_of(path)).rules
        except ConfigError:
            continue  # it has been shown
        found |= {rules, *find_list_files(rules)}
    return found


def _read_stamps(paths: Iterable[Path]) -> dict[Path, tuple[int, ...] | None]:
    """What tells a file from what it was; None for one that is not there."""
    found: dict[Path, tuple[int, ...] | None] = {}
    for path in paths:
        try:
            at = path.stat()
            found[path] = at.st_mtime_ns, at.st_size, at.st_ino
        except OSError:
            found[path] = None
    return found
