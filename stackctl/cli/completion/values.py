"""`stackctl _complete KIND`: the values that only the configuration knows, for the completion scripts.

It runs while somebody waits at a prompt, so it imports the settings and nothing else, and it never complains.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stackctl.config.settings import Flags, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def complete(arguments: Sequence[str]) -> int:
    """Print what `[KIND] [--config FILE]` asks for, `value` or `value<TAB>description` a line; always returns 0.

    KIND is mappings, tenancies or databases. Anything that is wrong prints nothing.
    """
    try:
        kind, *rest = arguments
        config = Path(rest[1]).expanduser() if rest[:1] == ["--config"] else None
        lines = list(_KINDS[kind](Settings(Flags(config=config))))
        # A control character would be taken for the end of the value, or reach the terminal.
        text = "".join(f"{line}\n" for line in lines if line.replace("\t", "", 1).isprintable())
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except Exception:  # noqa: BLE001 - whatever is wrong is told by the command itself, not at the prompt
        pass
    return 0


def _mappings(settings: Settings) -> Iterator[str]:
    yield from sorted(path.stem for path in settings.mappings_dir().iterdir() if path.suffix in (".yaml", ".yml"))


def _tenancies(settings: Settings) -> Iterator[str]:
    databases = settings.external_databases()
    for tenancy in settings.tenancies():
        ids = ", ".join(database.id for database in databases if database.tenancy == tenancy)
        yield f"{tenancy}\t{ids}" if ids else str(tenancy)


def _databases(settings: Settings) -> Iterator[str]:
    types: dict[str, list[str]] = {}
    for database in settings.external_databases():
        types.setdefault(database.id, []).append(f"{database.type} of {database.tenancy}")
    yield from (f"{id_}\t{', '.join(owners)}" for id_, owners in types.items())


_KINDS = {"mappings": _mappings, "tenancies": _tenancies, "databases": _databases}
