"""stackctl fuse on"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.fuse.shared import Name, switch


@command(example="stackctl fuse on poller")
def on(run: Run, name: Name) -> None:
    """Let a stage work again."""
    switch(run, name, on=True)
