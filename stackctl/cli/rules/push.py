"""stackctl rules push"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackctl.cli.command import Run, command
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.cli.rules.transfer import DryRun, Tenancy, Yes, finish_transfer, show_diff
from stackctl.core.errors import ConfigError
from stackctl.core.sentences import format_count
from stackctl.core.text_diff import diff_texts

if TYPE_CHECKING:
    from stackctl.rules.model import RuleSet


@command(example="stackctl rules push --tenancy acme --dry-run\nstackctl rules push --tenancy acme --yes")
def push(
    run: Run,
    tenancy: Tenancy = None,
    rules: RulesPath = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Make the file's rules those that the backend enforces for a tenancy; nothing else of its configuration changes.

    Lists that conditions use by name are written out: the backend knows none.

    Prints the difference.
    Exit codes: 0 written, or nothing to change; 2 no such tenancy; 3 the file is bad, or `check` finds an error in it;
    4 the operated database can't be reached; 5 not confirmed, or the configuration was changed by someone else in the
    meantime.
    """
    from stackctl.backend.tenancies import choose_tenancy, read_layers, write_config
    from stackctl.core.documents import Exact
    from stackctl.core.yaml_reader import read_text
    from stackctl.rules import rules_file
    from stackctl.rules.backend import configuration
    from stackctl.rules.check import check_rules
    from stackctl.rules.lists import expand_rules

    path = rules_path(run, rules)
    text = read_text(path, code="rules-unreadable", hint="name a rules file with --rules")
    wanted = rules_file.parse_rules(text, str(path))
    if not text.strip():
        raise ConfigError(
            f"{path} is empty; nothing was written",
            code="invalid-rules",
            hint="write `rules: {}` into it if the tenancy is to have no rules",
        )
    findings = check_rules(wanted)
    errors = [one for one in findings if one.severity == "error"]
    if errors and not dry_run:
        raise ConfigError(
            f"{path}:{errors[0].line}: {errors[0].rule_id}: {errors[0].message}; nothing was written",
            code="invalid-rule",
            hint="`stackctl rules check` says more",
        )
    wanted = wanted if errors else expand_rules(wanted)
    with run.database() as conn:
        layers = read_layers(conn, choose_tenancy(conn, tenancy))
        config = configuration.to_config(layers, wanted)
        before, problems = configuration.read_rules(layers)
        _, left = configuration.read_rules(replace(layers, environment_config=config))
        diff = _difference(before, wanted, str(layers.tenancy))
        changed = bool(diff) or problems != left
        for problem in problems:
            run.console.warn(problem + ("" if problem in left else ": corrected by this"))
        if changed and not dry_run:
            show_diff(run, diff)
            if warnings := sum(one.severity == "warning" for one in findings):
                run.console.warn(f"`stackctl rules check` has {format_count(warnings, 'warning', 'warnings')}")
            run.confirm(f"Make these the rules of tenancy {layers.tenancy}?", yes=yes)
            write_config(conn, layers, config)
    document = {
        "changed": changed and not dry_run,
        "dry_run": dry_run,
        "tenancy": layers.tenancy,
        "diff": Exact(diff),
        "warnings": problems,
        "errors": [f"{one.rule_id}: {one.message}" for one in errors],
    }

    def show() -> None:
        finish_transfer(run, diff, changed, dry_run, f"tenancy {layers.tenancy} has the rules of {path}")
        for one in errors:
            run.console.line(f"error {one.code}: {one.rule_id}: {one.message}", "red")

    run.finish(document, show, ok=not errors, exit_code=3)


def _difference(before: RuleSet, after: RuleSet, name: str) -> str:
    from stackctl.rules.lists import break_lists

    return diff_texts(break_lists(_text(before)), break_lists(_text(after)), name)


def _text(rules: RuleSet) -> str:
    from stackctl.rules.rewrite_rules_file import rewrite_rules
    from stackctl.rules.rules_file import parse_rules

    whole: Any = rewrite_rules("", "", replace(rules, rules=rules.ordered)) if rules != parse_rules("", "") else ""
    return whole
