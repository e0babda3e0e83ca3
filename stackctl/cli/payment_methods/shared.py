"""What the commands of stackctl payment_methods share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.arguments import parse_text_option
from stackctl.cli.stripe_options import open_connected_account

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackctl.cli.command import Run
    from stackctl.payments.gateway import Gateway
    from stackctl.payments.methods import Configuration, Plan

StatesFile = Annotated[Path, typer.Argument(metavar="FILE", help="payment_methods: {card: on, klarna: off}")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change only.")]
ConfigurationId = Annotated[
    str | None,
    typer.Option("--configuration", metavar="PMC", help="Which configuration, where Stripe has several: pmc_…"),
]


def read_configuration(
    run: Run, tenancy: str | None, configuration: str | None, key: str | None, base: str | None
) -> tuple[Gateway, Configuration]:
    from stackctl.payments import methods

    named = parse_text_option(configuration, "--configuration")
    _, account, gateway = open_connected_account(run, tenancy, key, base)
    return gateway, methods.read_configuration(gateway, account, named)


def apply_plan(
    run: Run, gateway: Gateway, found: Configuration, wanted: Mapping[str, bool], *, yes: bool, dry_run: bool
) -> None:
    from stackctl.payments import methods

    planned = methods.plan_changes(found, wanted)
    if dry_run or (not planned.changes and not planned.blocked):
        document = plan_document(planned, applied=False)
        run.finish(document, lambda: show_plan(run, planned, dry_run), ok=not planned.blocked, exit_code=5)
        return
    if not planned.blocked:
        for line in format_plan(planned):
            run.console.info(line)
        run.confirm(f"Switch these on account {found.account}?", yes=yes)
    after = methods.apply_plan(gateway, found, planned)
    undone = [id_ for id_, on in planned.changes if (now := after.find_method(id_)) is None or now.enabled != on]
    document = plan_document(planned, applied=True) | {"not_in_effect": undone}

    def show() -> None:
        for id_, on in planned.changes:
            took = "Stripe keeps it as it was" if id_ in undone else f"now {format_switch(on)}"
            run.console.line(f"{id_}: {took}", "red" if id_ in undone else None)

    run.finish(document, show, ok=not undone)


def plan_document(planned: Plan, *, applied: bool) -> dict[str, Any]:
    return {
        "changes": [{"id": id_, "from": format_switch(not on), "to": format_switch(on)} for id_, on in planned.changes],
        "blocked": [{"id": id_, "why": why} for id_, why in planned.blocked],
        "applied": applied,
    }


def show_plan(run: Run, planned: Plan, dry_run: bool = False) -> None:
    for line in format_plan(planned):
        run.console.line(line)
    for id_, why in planned.blocked:
        run.console.line(f"{id_} can't be switched: {why}", "red")
    if not planned.changes and not planned.blocked:
        run.console.line("nothing to change")
    elif dry_run:
        run.console.line("nothing was changed")


def format_plan(planned: Plan) -> list[str]:
    return [f"{id_}: {format_switch(not on)} -> {format_switch(on)}" for id_, on in planned.changes]


def format_switch(value: bool) -> str:
    return "on" if value else "off"
