"""`stackctl _complete KIND`: the values that only the configuration knows, for the completion scripts.

It runs while somebody waits at a prompt, so it imports the settings and nothing else, and it never complains.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.config.settings import Flags, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What no shell obeys, whichever quotes it lands in, and no terminal either. A name with anything else is not offered,
# nor one that would be read as an option.
_HARMLESS = re.compile(r"\w[\w .:/@%+=,-]*")


def complete(arguments: Sequence[str]) -> int:
    """Print what `[KIND] [--config FILE]` asks for, `value` or `value<TAB>description` a line; always returns 0.

    KIND is mappings, tenancies, databases or lint-rules. Anything that is wrong prints nothing.
    """
    try:
        kind, *rest = arguments
        config = Path(rest[1]).expanduser() if rest[:1] == ["--config"] else None
        lines = list(_KINDS[kind](Settings(Flags(config=config))))
        text = "".join(f"{line}\n" for line in lines if all(map(_HARMLESS.fullmatch, line.split("\t", 1))))
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except Exception:  # noqa: BLE001 - whatever is wrong is told by the command itself, not at the prompt
        pass
    return 0


def _mappings(settings: Settings) -> Iterator[str]:
    files = (path for folder in settings.mappings_dirs() for path in folder.iterdir())
    yield from sorted(path.stem for path in files if path.suffix in (".yaml", ".yml"))


def _tenancies(settings: Settings) -> Iterator[str]:
    databases = settings.external_databases()
    for tenancy in settings.tenancies():
        ids = ", ".join(one.id for one in databases if one.tenancy == tenancy and _HARMLESS.fullmatch(one.id))
        yield f"{tenancy}\t{ids}" if ids else str(tenancy)


def _databases(settings: Settings) -> Iterator[str]:
    types: dict[str, list[str]] = {}
    for database in settings.external_databases():
        types.setdefault(database.id, []).append(f"{database.type} of {database.tenancy}")
    yield from (f"{id_}\t{', '.join(owners)}" for id_, owners in types.items())


def _lint_rules(settings: Settings) -> Iterator[str]:
    from stackctl.migrate.lint.linter import RULES  # it alone is needed here, and only here

    yield from RULES


_KINDS = {"mappings": _mappings, "tenancies": _tenancies, "databases": _databases, "lint-rules": _lint_rules}
