"""The one table of commands: what there is, where it is defined, and what the list of commands says of it.

A command's module has the command's name, in the package of its group; it is imported when the command is called or
its group's help is opened.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command at the top level, defined in `cli/<package>/<its name>.py`."""

    package: str
    help: str
    panel: str


@dataclass(frozen=True)
class Group:
    """A group, whose commands are defined in `cli/<its name>/`, in the order of its help."""

    help: str
    panel: str
    example: str
    commands: tuple[str, ...]


_START, _SCHEMA, _PIPELINE, _WATCH = "Getting started", "Schema", "Sync pipeline", "Status and control"
_USERS, _PAYMENTS = "Users", "Payments"
COMMANDS: dict[str, Command | Group] = {
    "demo": Command("start", "Play everything end to end on an embedded PostgreSQL.", _START),
    "init": Command("start", "Write a commented stackctl.yaml.", _START),
    "doctor": Command("start", "Check the configuration and every database; each finding names its fix.", _START),
    "config": Group("Show the effective configuration.", _START, "stackctl config show", ("show",)),
    "explain": Command("start", "Explain an error by its code: what it means, why it happens, what to do.", _START),
    "completion": Command("start", "Print the completion script of a shell.", _START),
    "migrate": Group(
        "Apply, inspect and write migrations.",
        _SCHEMA,
        "stackctl migrate up",
        ("up", "status", "verify", "repair", "adopt", "new", "lint", "check", "diff", "dump", "squash", "down",
         "rollback"),
    ),
    "mappings": Group(
        "List, check, compile and compare the SQL mappings.",
        _SCHEMA,
        "stackctl mappings list",
        ("list", "show", "check", "compile", "diff", "new", "export"),
    ),
    "run": Command("pipeline", "Sequencer, poller and engine in one process.", _PIPELINE),
    "serve": Command("pipeline", "Sync on signed HTTP requests; health, status and metrics.", _PIPELINE),
    "sequence": Command("pipeline", "Stamp changed rows and queue their tenancies.", _PIPELINE),
    "poll": Command("pipeline", "Process the queue: sync the tenancies that are due.", _PIPELINE),
    "sync": Command("pipeline", "Sync tenancies now, without the queue.", _PIPELINE),
    "backfill": Command("pipeline", "Send every row of a mapping again, in batches.", _PIPELINE),
    "verify": Command("pipeline", "Compare external databases with their source, and repair them.", _PIPELINE),
    "enqueue": Command("pipeline", "Queue tenancies for the poller.", _PIPELINE),
    "queue": Group(
        "List the queue; retry or forget what failed.", _PIPELINE, "stackctl queue list", ("list", "retry", "forget")
    ),
    "status": Command("pipeline", "The pipeline at a glance: fuses, backlog, lag, queue, databases.", _WATCH),
    "fuse": Group(
        "Switch the sequencer or the poller off and on.", _WATCH, "stackctl fuse off sequencer", ("show", "on", "off")
    ),
    "tenancies": Group(
        "List the tenancies: ids, projects, external databases.", _WATCH, "stackctl tenancies list", ("list",)
    ),
    "db": Group("Reach the operated database with other programs.", _WATCH, "stackctl db psql", ("url", "psql")),
    "rules": Group(
        "Test sign-up rules before they lock anyone out.",
        _USERS,
        "stackctl rules check",
        ("list", "check", "eval", "pull", "push", "backtest", "add", "edit", "move", "enable", "disable", "remove",
         "stats", "test", "tree"),
    ),
    "users": Group(
        "Show, restrict and unrestrict users.",
        _USERS,
        "stackctl users show ada@example.com",
        ("show", "restrict", "unrestrict"),
    ),
    "refunds": Group(
        "Refund purchases and subscriptions through Stripe, never twice.",
        _PAYMENTS,
        "stackctl refunds list --since 24h",
        ("preview", "create", "list", "show", "resume"),
    ),
    "payments": Group(
        "How a project is connected to Stripe; its test mode and products.",
        _PAYMENTS,
        "stackctl payments status --tenancy acme",
        ("status", "test-mode", "products"),
    ),
    "payment-methods": Group(
        "Show and switch the payment methods that a checkout offers.",
        _PAYMENTS,
        "stackctl payment-methods list --tenancy acme",
        ("list", "set", "plan", "apply", "export"),
    ),
}  # fmt: skip
