"""stackctl rules tree"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.shared import RulesFile, rules_path
from stackctl.core.errors import ConfigError, UsageError


@command(
    example="stackctl rules tree block-disposable\nstackctl rules tree block-disposable --json > tree.json\n"
    "stackctl rules tree --from tree.json",
)
def tree(
    run: Run,
    id_: Annotated[str | None, typer.Argument(metavar="[ID]", help="A rule; its condition is drawn.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A tree as JSON; print it as CEL.")
    ] = None,
    rules: RulesFile = None,
) -> None:
    """Draw a rule's condition as groups and conditions, or make a condition of such a tree.

    Exit codes: 0 drawn; 2 no such rule; 3 the condition or the tree can't be read.
    """
    from stackctl.rules.cel import tree as trees
    from stackctl.rules.cel.parse import Unreadable, position
    from stackctl.rules.edits import read

    if (id_ is None) == (source is None):
        raise UsageError("name a rule, or a tree with --from", code="usage")
    if source is not None:
        try:
            found = trees.of(json.loads(source.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{source} can't be read: {error.strerror}", code="tree-unreadable") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source}: {error}", code="invalid-tree") from error
        condition = trees.written(found)
        run.finish({"condition": condition}, lambda: run.console.line(condition))
        return
    rule = read(rules_path(run, rules)).rule(id_ or "")
    try:
        found = trees.read(rule.condition or "")
    except Unreadable as error:
        line, column = position(rule.condition or "", error.at)
        raise ConfigError(
            f"{rule.id}: line {line}, column {column}: {error.what}", code="invalid-rule", hint="stackctl rules check"
        ) from None

    def show() -> None:
        for line in trees.drawn(found):
            run.console.line(line)

    run.finish(trees.document(found), show)
