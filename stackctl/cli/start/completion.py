"""stackctl completion: print the script that makes a shell complete stackctl."""

from __future__ import annotations

import difflib
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.bundled import find_bundled
from stackctl.core.errors import UsageError

SCRIPTS = {"bash": "stackctl.bash", "zsh": "_stackctl", "fish": "stackctl.fish", "powershell": "stackctl.ps1"}
_EXAMPLE = """
stackctl completion bash > ~/.local/share/bash-completion/completions/stackctl
stackctl completion zsh > "${fpath[1]}/_stackctl"
stackctl completion fish > ~/.config/fish/completions/stackctl.fish
stackctl completion powershell >> $PROFILE
"""


@command(example=_EXAMPLE)
def completion(
    run: Run,
    shell: Annotated[str, typer.Argument(metavar="|".join(SCRIPTS), help="The shell to print the script of.")],
) -> None:
    """Print the completion script of a shell.

    Save it where the shell looks for completions, as the examples do, and start a new shell.

    Prints the script.
    Exit codes: 0 printed; 2 there is no such shell.
    """
    if shell not in SCRIPTS:
        close = difflib.get_close_matches(shell.lower(), SCRIPTS, n=1, cutoff=0.5)
        hint = (f"did you mean `{close[0]}`? " if close else "") + f"known are {', '.join(SCRIPTS)}"
        raise UsageError(f"no completion for the shell {shell!r}", code="unknown-shell", hint=hint)
    run.console.document((find_bundled("completions") / SCRIPTS[shell]).read_text(encoding="utf-8"))
