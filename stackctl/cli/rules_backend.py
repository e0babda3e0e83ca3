"""stackctl rules pull and push"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, counted, uuid_argument
from stackctl.cli.rules import RulesFile, app, rules_path
from stackctl.errors import ConfigError

if TYPE_CHECKING:
    from stackctl.rules.model import RuleSet

Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Whose rules; not needed where there is but one.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference only.")]


@command(app, "pull", example="stackctl rules pull --dry-run\nstackctl rules pull --rules sign-up-rules.yaml --yes")
def pull(run: Run, tenancy: Tenancy = None, rules: RulesFile = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Write the rules that the backend enforces into the file; comments and layout of what is alike stay.

    Exit codes: 0 written, or nothing to change; 2 no such tenancy; 5 not confirmed, or the configuration is invalid.
    """
    from stackctl.rules import backend, changes
    from stackctl.sync.pipeline import Pipeline
    from stackctl.tenancy_config import chosen, read

    held = changes.read(rules_path(run, rules))
    with Pipeline(run.settings).session() as conn:
        found = backend.read(read(conn, chosen(conn, uuid_argument(tenancy) if tenancy else None)))
    wanted = replace(found, rules=tuple(sorted(found.rules, key=lambda rule: (-rule.priority, rule.id))))
    change = changes.planned(held, wanted)
    changed = change.text != (held.text or "")
    if changed and not dry_run:
        _show_diff(run, change.diff)
        if held.text is not None:
            run.confirm(f"Change {held.path}?", yes=yes)
        changes.write(change)
    document = {"changed": changed and not dry_run, "dry_run": dry_run, "file": str(held.path), "diff": change.diff}
    run.finish(document, lambda: _end(run, change.diff, changed, dry_run, f"{held.path} written"))


@command(app, "push", example="stackctl rules push --dry-run\nstackctl rules push --yes")
def push(run: Run, tenancy: Tenancy = None, rules: RulesFile = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Make the file's rules those that the backend enforces for a tenancy; nothing else of its configuration changes.

    Exit codes: 0 written, or nothing to change; 2 no such tenancy; 3 the file is bad, or `check` finds an error in it;
    5 not confirmed, or the configuration was changed by somebody else meanwhile.
    """
    from stackctl.rules import backend, files
    from stackctl.rules.check import check
    from stackctl.sync.pipeline import Pipeline
    from stackctl.tenancy_config import chosen, read, write

    path = rules_path(run, rules)
    wanted = files.load(path)
    findings = check(wanted)
    if errors := [one for one in findings if one.severity == "error"]:
        raise ConfigError(
            f"{path}:{errors[0].line}: {errors[0].rule_id}: {errors[0].message}; nothing was written",
            code="invalid-rule",
            hint="`stackctl rules check` says more",
        )
    with Pipeline(run.settings).session() as conn:
        layers = read(conn, chosen(conn, uuid_argument(tenancy) if tenancy else None))
        config = backend.with_rules(layers, wanted)
        before = backend.read(layers)
        diff = _difference(before, wanted, str(layers.tenancy))
        changed = bool(diff)
        if changed and not dry_run:
            _show_diff(run, diff)
            if warnings := sum(one.severity == "warning" for one in findings):
                run.console.warn(f"`stackctl rules check` has {counted(warnings, 'warning', 'warnings')}")
            run.confirm(f"Make these the rules of tenancy {layers.tenancy}?", yes=yes)
            write(conn, layers, config)
    document = {"changed": changed and not dry_run, "dry_run": dry_run, "tenancy": layers.tenancy, "diff": diff}
    run.finish(document, lambda: _end(run, diff, changed, dry_run, f"tenancy {layers.tenancy} has the rules of {path}"))


def _difference(before: RuleSet, after: RuleSet, name: str) -> str:
    one, other = (_text(rules).splitlines() for rules in (before, after))
    return "\n".join(difflib.unified_diff(one, other, name, name, lineterm="", n=1))


def _text(rules: RuleSet) -> str:
    from stackctl.rules.files import parse
    from stackctl.rules.rewrite import rewritten

    whole: Any = rewritten("", "", replace(rules, rules=rules.ordered)) if rules != parse("", "") else ""
    return whole


def _show_diff(run: Run, diff: str) -> None:
    if not run.json_output:
        for line in diff.splitlines():
            run.console.line(line, {"+": "green", "-": "red"}.get(line[:1]))


def _end(run: Run, diff: str, changed: bool, dry_run: bool, done: str) -> None:
    if not changed:
        run.console.line("nothing to change")
    elif dry_run:
        _show_diff(run, diff)
        run.console.line("nothing was written")
    else:
        run.console.line(done)
