"""stackctl payment-methods"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, group
from stackctl.cli.payments_common import ApiBase, ApiKey, Tenancy, connected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stackctl.payments.gateway import Gateway
    from stackctl.payments.methods import Configuration, Plan

app = group("See and switch what a checkout offers to pay with.", example="stackctl payment-methods list")
apps = {"payment-methods": app}

Wanted = Annotated[Path, typer.Argument(metavar="FILE", help="payment_methods: {card: on, klarna: off}")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change only.")]


@command(app, "list", example="stackctl payment-methods list\nstackctl payment-methods list --json")
def list_(run: Run, tenancy: Tenancy = None, stripe_api_key: ApiKey = None, stripe_api_base: ApiBase = None) -> None:
    """List the methods by category: whether checkout shows them, and whether they can be switched."""
    from stackctl.payments.methods import CATEGORIES

    _, found = _read(run, tenancy, stripe_api_key, stripe_api_base)
    document = {
        "account": found.account,
        "config_id": found.id,
        "methods": [
            {
                "id": one.method.id,
                "name": one.method.name,
                "category": one.method.category,
                "enabled": one.enabled,
                "available": one.available,
                "overridable": one.overridable,
                "requires": one.method.requires,
            }
            for one in found.methods
        ],
    }
    rows = [
        (
            title,
            one.method.id,
            one.method.name,
            "on" if one.enabled else "off",
            _yes(one.available),
            _yes(one.overridable),
            ", ".join(one.method.requires),
        )
        for category, title in CATEGORIES.items()
        for one in found.methods
        if one.method.category == category
    ]

    def show() -> None:
        run.console.table(("category", "method", "name", "", "available", "overridable", "requires"), rows)
        run.console.line()
        run.console.line(f"account {found.account}, configuration {found.id}")

    run.finish(document, show)


@command(app, "set", example="stackctl payment-methods set card=on klarna=off --dry-run")
def set_(
    run: Run,
    methods: Annotated[list[str], typer.Argument(metavar="METHODS...", help="METHOD=on or METHOD=off, each.")],
    tenancy: Tenancy = None,
    stripe_api_key: ApiKey = None,
    stripe_api_base: ApiBase = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Switch methods on or off; the difference is shown first.

    Exit codes: 0 done, or nothing to change; 1 Stripe did not do all of it; 2 no such method; 5 refused, or not
    confirmed; 6 sent, but not answered.
    """
    from stackctl.payments.methods import of_arguments

    wanted = of_arguments(methods)
    gateway, found = _read(run, tenancy, stripe_api_key, stripe_api_base)
    _carry_out(run, gateway, found, wanted, yes=yes, dry_run=dry_run)


@command(app, "plan", example="stackctl payment-methods plan methods.yaml")
def plan(
    run: Run, file: Wanted, tenancy: Tenancy = None, stripe_api_key: ApiKey = None, stripe_api_base: ApiBase = None
) -> None:
    """Show what `apply` would change, and what stands in the way.

    Exit codes: 0 nothing stands in the way; 1 something does; 3 the file is bad.
    """
    from stackctl.payments import methods

    wanted = methods.of_file(file)
    _, found = _read(run, tenancy, stripe_api_key, stripe_api_base)
    planned = methods.plan(found, wanted)
    run.finish(_document(planned, applied=False), lambda: _show(run, planned), ok=not planned.blocked)


@command(app, "apply", example="stackctl payment-methods apply methods.yaml --dry-run")
def apply(
    run: Run,
    file: Wanted,
    tenancy: Tenancy = None,
    stripe_api_key: ApiKey = None,
    stripe_api_base: ApiBase = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Bring the methods that the file names into the state that it names; the difference is shown first.

    Exit codes: 0 done, or nothing to change; 1 Stripe did not do all of it; 3 the file is bad; 5 refused, or not
    confirmed; 6 sent, but not answered.
    """
    from stackctl.payments.methods import of_file

    wanted = of_file(file)
    gateway, found = _read(run, tenancy, stripe_api_key, stripe_api_base)
    _carry_out(run, gateway, found, wanted, yes=yes, dry_run=dry_run)


@command(app, "export", example="stackctl payment-methods export > methods.yaml")
def export(run: Run, tenancy: Tenancy = None, stripe_api_key: ApiKey = None, stripe_api_base: ApiBase = None) -> None:
    """Print the present state as a file for `plan` and `apply`."""
    from stackctl.payments.methods import as_file

    _, found = _read(run, tenancy, stripe_api_key, stripe_api_base)
    states = {one.method.id: one.enabled for one in found.methods}
    run.finish({"payment_methods": states}, lambda: run.console.line(as_file(found).rstrip()))


def _read(run: Run, tenancy: str | None, key: str | None, base: str | None) -> tuple[Gateway, Configuration]:
    from stackctl.payments import methods

    _, account, gateway = connected(run, tenancy, key, base)
    return gateway, methods.read(gateway, account)


def _carry_out(
    run: Run, gateway: Gateway, found: Configuration, wanted: Mapping[str, bool], *, yes: bool, dry_run: bool
) -> None:
    from stackctl.payments import methods

    planned = methods.plan(found, wanted)
    if dry_run or (not planned.changes and not planned.blocked):
        document = _document(planned, applied=False)
        run.finish(document, lambda: _show(run, planned, dry_run), ok=not planned.blocked, exit_code=5)
        return
    if not planned.blocked:
        for line in _lines(planned):
            run.console.info(line)
        run.confirm(f"Switch these on account {found.account}?", yes=yes)
    after = methods.apply(gateway, found, planned)
    undone = [id_ for id_, on in planned.changes if (now := after.of(id_)) is None or now.enabled != on]
    document = _document(planned, applied=True) | {"not_in_effect": undone}

    def show() -> None:
        for id_, on in planned.changes:
            took = "Stripe keeps it as it was" if id_ in undone else f"now {_on(on)}"
            run.console.line(f"{id_}: {took}", "red" if id_ in undone else None)

    run.finish(document, show, ok=not undone)


def _document(planned: Plan, *, applied: bool) -> dict[str, Any]:
    return {
        "changes": [{"id": id_, "from": _on(not on), "to": _on(on)} for id_, on in planned.changes],
        "blocked": [{"id": id_, "why": why} for id_, why in planned.blocked],
        "applied": applied,
    }


def _show(run: Run, planned: Plan, dry_run: bool = False) -> None:
    for line in _lines(planned):
        run.console.line(line)
    for id_, why in planned.blocked:
        run.console.line(f"{id_} can't be switched: {why}", "red")
    if not planned.changes and not planned.blocked:
        run.console.line("nothing to change")
    elif dry_run:
        run.console.line("nothing was changed")


def _lines(planned: Plan) -> list[str]:
    return [f"{id_}: {_on(not on)} -> {_on(on)}" for id_, on in planned.changes]


def _on(value: bool) -> str:
    return "on" if value else "off"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
