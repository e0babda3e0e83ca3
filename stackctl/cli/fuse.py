"""stackctl fuse"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stackctl.cli.command import Run, command, group

if TYPE_CHECKING:
    from stackctl.sync.fuses import Fuses

app = group("Switch the sequencer or the poller off and on.", example="stackctl fuse off sequencer")
apps = {"fuse": app}

Name = Annotated[Literal["sequencer", "poller"], typer.Argument(help="Which stage.")]


@command(app, "show", example="stackctl fuse show --json")
def show(run: Run) -> None:
    """Show whether each stage may work."""
    from stackctl.sync import fuses
    from stackctl.sync.pipeline import Pipeline

    with Pipeline(run.settings).session() as conn:
        _finish(run, fuses.read(conn))


@command(app, "on", example="stackctl fuse on poller")
def on(run: Run, name: Name) -> None:
    """Let a stage work again."""
    _switch(run, name, on=True)


@command(app, "off", example="stackctl fuse off sequencer")
def off(run: Run, name: Name) -> None:
    """Stop a stage everywhere after its batch in hand. `stackctl sync` by hand still works."""
    _switch(run, name, on=False)


def _switch(run: Run, name: Literal["sequencer", "poller"], *, on: bool) -> None:
    from stackctl.sync import fuses
    from stackctl.sync.pipeline import Pipeline

    with Pipeline(run.settings).session() as conn:
        _finish(run, fuses.switch(conn, name, on=on))


def _finish(run: Run, fuses: Fuses) -> None:
    def lines() -> None:
        for name, state in asdict(fuses).items():
            run.console.line(f"{name:<10} {'on' if state else 'off'}", style=None if state else "bold red")

    run.finish({"fuses": asdict(fuses)}, lines)
