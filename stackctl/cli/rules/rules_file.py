"""The rules file that a command of `stackctl rules` works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.core.errors import ConfigError

if TYPE_CHECKING:
    from stackctl.cli.command import Run
    from stackctl.rules.model import RuleSet


RulesPath = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="The rules file; default sign_up_rules of stackctl.yaml."),
]


def rules_path(run: Run, path: Path | None) -> Path:
    """The rules file of --rules, or else the configured one."""
    found = path or run.settings.get("sign_up_rules")
    if found is None:
        raise ConfigError(
            "no rules file is named", code="no-rules", hint="pass --rules FILE, or set sign_up_rules in stackctl.yaml"
        )
    return found


def load_rules(run: Run, path: Path | None) -> RuleSet:
    from stackctl.rules.rules_file import load_rules

    return load_rules(rules_path(run, path))
