"""stackctl fuse off"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.fuse.shared import Name, switch


@command(example="stackctl fuse off sequencer")
def off(run: Run, name: Name) -> None:
    """Stop a stage everywhere after its batch in hand. `stackctl sync` by hand still works."""
    switch(run, name, on=False)
