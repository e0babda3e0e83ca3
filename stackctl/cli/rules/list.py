"""stackctl rules list"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.rules.rules_file import RulesPath, load_rules
from stackctl.core.sentences import format_count
from stackctl.core.tables import Column


@command(example="stackctl rules list\nstackctl rules list --rules sign-up-rules.yaml --json", lists=True)
def list_(run: Run, rules: RulesPath = None) -> None:
    """List the rules in the order in which they are evaluated.

    Prints a row for each rule: priority, state, action and condition.
    Exit codes: 0 printed; 3 the file is bad.
    """
    from stackctl.core.documents import Exact

    found = load_rules(run, rules)
    document = {
        "default_action": found.default_action,
        "rules": [
            {
                "id": rule.id,
                "display_name": rule.display_name,
                "enabled": rule.enabled,
                "priority": rule.priority,
                "condition": Exact(rule.condition),
                "action": {"type": rule.action.type, "message": rule.action.message},
            }
            for rule in found.ordered
        ],
    }
    rows = [
        (
            rule.id,
            rule.priority,
            "on" if rule.enabled else "off",
            rule.action.type,
            " ".join((rule.condition or "").split()),
        )
        for rule in found.ordered
    ]
    summary = f"{format_count(len(rows), 'rule', 'rules')}; otherwise {found.default_action}"

    def show_summary() -> None:
        if rows:
            run.console.line()
            run.console.line(summary)

    run.finish_list(
        document,
        (
            "rule",
            Column("priority", right=True, spare=1),
            "state",
            "action",
            Column("condition", folds=True, exact=True),
        ),
        rows,
        empty=summary,
        after=show_summary,
    )
