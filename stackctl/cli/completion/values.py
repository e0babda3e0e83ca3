"""`stackctl _complete KIND`: the values that only files or the database know, for the completion scripts.

It runs while somebody waits at a prompt, so it imports what the kind needs and nothing else, ends in time, and never
complains.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.config.settings import Flags, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# What no shell obeys, whichever quotes it lands in, and no terminal either. A name with anything else is not offered,
# nor one that would be read as an option.
_HARMLESS = re.compile(r"\w[\w .:/@%+=,-]*")


def complete(arguments: Sequence[str]) -> int:
    """Print what `KIND [--config FILE | --database-url URL | --rules FILE | --dir DIR]…` asks for; always returns 0.

    KIND is one of KINDS. Each line is `value` or `value<TAB>description`, and is printed as soon as it is known. Of an
    option that is given several times the last counts. Anything that is wrong prints nothing.
    """
    try:
        kind, *rest = arguments
        given = dict(zip(rest[::2], rest[1::2], strict=True))
        config = Path(given["--config"]).expanduser() if "--config" in given else None
        settings = Settings(Flags(config=config, database_url=given.get("--database-url")))
        printed: set[str] = set()
        for line in KINDS[kind](settings, given):
            value, _, description = line.partition("\t")
            if value not in printed and _HARMLESS.fullmatch(value):
                printed.add(value)
                told = f"\t{description}" if _HARMLESS.fullmatch(description) else ""
                sys.stdout.buffer.write(f"{value}{told}\n".encode())
                sys.stdout.flush()
    except Exception:  # noqa: BLE001 - whatever is wrong is told by the command itself, not at the prompt
        pass
    return 0


def _mappings(settings: Settings, _: Mapping[str, str]) -> Iterator[str]:
    files = (path for folder in settings.mappings_dirs() for path in folder.iterdir())
    yield from sorted(path.stem for path in files if path.suffix in (".yaml", ".yml"))


def _synced_tenancies(settings: Settings, _: Mapping[str, str]) -> Iterator[str]:
    databases = settings.external_databases()
    for tenancy in settings.tenancies():
        ids = ", ".join(one.id for one in databases if one.tenancy == tenancy and _HARMLESS.fullmatch(one.id))
        yield f"{tenancy}\t{ids}"
    if settings.get("external_databases_from") == "backend":
        yield from _ask("list_tenancies", settings)


def _tenancies(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    yield from _synced_tenancies(settings, given)
    yield from _ask("list_tenancies", settings)


def _databases(settings: Settings, _: Mapping[str, str]) -> Iterator[str]:
    types: dict[str, list[str]] = {}
    for database in settings.external_databases():
        types.setdefault(database.id, []).append(f"{database.type} of {database.tenancy}")
    yield from (f"{id_}\t{', '.join(owners)}" for id_, owners in types.items())
    if settings.get("external_databases_from") == "backend":
        yield from _ask("list_databases", settings)


def _failing(settings: Settings, _: Mapping[str, str]) -> Iterator[str]:
    yield from _ask("list_failing", settings)


def _refunds(settings: Settings, _: Mapping[str, str]) -> Iterator[str]:
    yield from _ask("list_refunds", settings)


def _purchases(settings: Settings, _: Mapping[str, str]) -> Iterator[str]:
    yield from _ask("list_purchases", settings)


def _ask(what: str, settings: Settings) -> Iterator[str]:
    """What the operated database answers, if it does in time."""
    if not settings.get("database.url"):
        return
    from stackctl.cli.completion import database_values

    yield from database_values.ask(getattr(database_values, what), settings)


def _rules(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    from stackctl.rules.rules_file import load_rules

    path = Path(given["--rules"]).expanduser() if "--rules" in given else settings.get("sign_up_rules")
    yield from (f"{rule.id}\t{rule.display_name}" for rule in load_rules(path).rules)


def _migrations(settings: Settings, given: Mapping[str, str]) -> Iterator[str]:
    from stackctl.migrate.folder import list_files

    folder = Path(given["--dir"]).expanduser() if "--dir" in given else settings.migrations_dir()
    for name, _ in list_files(folder):
        version, _, words = name.partition("_")
        yield f"{version}\t{words.replace('_', ' ')}"


def _lint_rules(*_: object) -> Iterator[str]:
    from stackctl.migrate.lint.linter import RULES

    yield from (f"{rule.id}\t{rule.title}" for rule in RULES.values())


def _codes(*_: object) -> Iterator[str]:
    from stackctl.cli.explanations.texts import read_explanations
    from stackctl.migrate.compatibility.contract_rules import RULES

    yield from (f"{one.code}\t{one.meaning}" for one in read_explanations())
    yield from _lint_rules()
    yield from RULES


def _payment_methods(*_: object) -> Iterator[str]:
    from stackctl.payments.methods import METHODS

    yield from (f"{method.id}={state}\t{method.name}" for method in METHODS.values() for state in ("on", "off"))


KINDS = {
    "mappings": _mappings,
    "tenancies": _tenancies,
    "synced-tenancies": _synced_tenancies,
    "databases": _databases,
    "failing": _failing,
    "rules": _rules,
    "migrations": _migrations,
    "refunds": _refunds,
    "purchases": _purchases,
    "payment-methods": _payment_methods,
    "lint-rules": _lint_rules,
    "codes": _codes,
}
