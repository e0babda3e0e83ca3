"""What the commands of stackctl fuse share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from stackctl.cli.command import Run
    from stackctl.sync.queue.fuses import Fuses

Name = Annotated[Literal["sequencer", "poller"], typer.Argument(help="Which stage.")]


def switch(run: Run, name: Literal["sequencer", "poller"], *, on: bool) -> None:
    from stackctl.sync.queue import fuses

    with run.database() as conn:
        finish(run, fuses.switch_fuse(conn, name, on=on))


def finish(run: Run, fuses: Fuses) -> None:
    def lines() -> None:
        for name, state in asdict(fuses).items():
            run.console.line(f"{name:<10} {'on' if state else 'off'}", style=None if state else "bold red")

    run.finish({"fuses": asdict(fuses)}, lines)
