"""stackctl rules tree"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.core.errors import ConfigError, UsageError

_TREE_HINT = "`stackctl rules tree RULE --json` prints the tree of a rule's condition"


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
    rules: RulesPath = None,
) -> None:
    """Draw a rule's condition as groups and conditions, or make a condition of such a tree.

    Prints the tree, or the condition.
    Exit codes: 0 printed; 2 no such rule; 3 the condition or the tree can't be read.
    """
    from stackctl.core.documents import Exact
    from stackctl.core.files import read_bounded
    from stackctl.core.json_reader import load_json
    from stackctl.rules.cel import tree as trees
    from stackctl.rules.cel.parse import ConditionSyntaxError, to_line_and_column
    from stackctl.rules.editing import read_rules_file

    if (id_ is None) == (source is None):
        raise UsageError("name a rule, or a tree with --from", code="usage")
    if source is not None:
        try:
            found = trees.from_document(load_json(read_bounded(source).decode("utf-8-sig")))
        except OSError as error:
            raise ConfigError(
                f"{source} can't be read: {error.strerror}", code="tree-unreadable", hint=_TREE_HINT
            ) from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source}: {error}", code="invalid-tree", hint=_TREE_HINT) from error
        condition = trees.to_condition(found)
        run.finish({"condition": Exact(condition)}, lambda: run.console.document(condition + "\n"))
        return
    rule = read_rules_file(rules_path(run, rules)).find_rule(id_ or "")
    try:
        found = trees.parse_tree(rule.condition or "")
    except ConditionSyntaxError as error:
        line, column = to_line_and_column(rule.condition or "", error.at)
        raise ConfigError(
            f"{rule.id}: line {line}, column {column}: {error.reason}", code="invalid-rule", hint="stackctl rules check"
        ) from None

    def show() -> None:
        for line in trees.draw_tree(found):
            run.console.line(line, exact=True)

    run.finish(Exact(trees.to_document(found)), show)
