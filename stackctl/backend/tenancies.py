"""A tenancy's configuration in the operated database: its branch's JSON, overridden by its environment's."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stackctl.core.errors import StateError, UsageError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stackctl.postgres.connect import Connection

LOCK_TIMEOUT = "10s"  # for which a write waits for whoever holds the row
_MOST_DEPTH = 40  # of objects in objects
_MOST_LISTED = 10  # tenancies that an error names

# Objects whose entries have any name; all others are there by default with all their keys.
_RECORDS = re.compile(
    r"auth\.signUpRules|auth\.oauth\.providers|dbSync\.externalDatabases|domains\.trustedDomains"
    r"|payments\.(items|products(\.[^.]+\.(prices|includedItems))?)"
)
_PART = r"[A-Za-z0-9_:$][A-Za-z0-9_:$-]*"
_KEY = re.compile(rf"{_PART}(\.{_PART})*")

_SQL = load_statements(__file__)


def merge_config(
    config: Mapping[str, Any], base: Mapping[str, Any] | None = None, depth: int = _MOST_DEPTH
) -> dict[str, Any]:
    """What takes effect of a configuration in which any key may be a path with dots, over `base`, as nested objects.

    A key takes the place of what `base` says at its path and below. Then each sets what stands at its path, whole,
    those with more dots later: JSON in the database keeps no order that could decide. A null takes away. The objects on
    the way are there by default, but nothing gets behind a null or a value that is no object; and a record that a key
    with dots has set holds those entries alone (see `_RECORDS`): a key that leads into another one is dropped.
    """
    kept = {key: value for key, value in (base or {}).items() if not any(over in config for over in _prefixes(key))}
    return _normalize({**kept, **config}, (), depth)


def _normalize(config: Mapping[str, Any], place: tuple[str, ...], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in sorted(config, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner: dict[str, Any] | None = found
        for number, name in enumerate(path):
            if name not in inner and _is_whole_record(config, place, path[:number]):
                inner = None
                break
            below = inner.get(name, {})
            if not isinstance(below, dict):
                inner = None
                break
            inner[name] = inner = dict(below)
        if inner is None:
            continue
        value, left = config[key], depth - len(path) - 1
        is_inner = isinstance(value, dict) and left > 0
        inner[last] = _normalize(value, (*place, *path, last), left) if is_inner else value
    return found


def _is_whole_record(config: Mapping[str, Any], place: tuple[str, ...], path: list[str]) -> bool:
    """Whether a key with dots has set the object at this path, which is a record."""
    if not _RECORDS.fullmatch(".".join((*place, *path))):
        return False
    return any(".".join(path[:length]) in config for length in range(2, len(path) + 1))


def _prefixes(key: str) -> Iterable[str]:
    """The key, and the paths that it lies below."""
    parts = key.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def find_invalid_keys(config: Mapping[str, Any], depth: int = _MOST_DEPTH) -> list[str]:
    """Keys, as paths, for which the backend does not read the configuration at all."""
    found: list[str] = []
    for key, value in config.items():
        if not _KEY.fullmatch(key):
            found.append(key)
        if isinstance(value, dict) and depth:
            found += [f"{key}.{inner}" for inner in find_invalid_keys(value, depth - 1)]
    return found


def remove_paths(config: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """The configuration without what stands at these paths and below them, however it is spelled."""
    found = dict(config)
    for path in paths:
        found = _without(found, path)
    return found


def _without(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key == path or key.startswith(f"{path}."):
            continue
        if path.startswith(f"{key}.") and isinstance(value, dict):
            value = _without(value, path[len(key) + 1 :])
        found[key] = value
    return found


@dataclass(frozen=True)
class ConfigLayers:
    """A tenancy's configuration as it was read; a layer that has no row is None."""

    tenancy: UUID
    project: str
    branch: str
    branch_config: dict[str, Any] | None
    environment_config: dict[str, Any] | None

    def get(self, *path: str) -> Any:
        """What stands at a path, after overriding; None where nothing does."""
        found: Any = merge_config(self.environment_config or {}, self.branch_config)
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found


@dataclass(frozen=True)
class Tenancy:
    """A branch of a project, or what an organization has of it."""

    id: UUID
    project: str
    project_name: str | None
    branch: str
    organization: UUID | None

    def __str__(self) -> str:
        organization = f", organization {self.organization}" if self.organization else ""
        return f"{self.id} (project {self.project}, branch {self.branch}{organization})"


def list_tenancies(conn: Connection, limit: int) -> list[Tenancy]:
    """The first of them, by project and branch."""
    return [Tenancy(*row) for row in conn.execute(_SQL["list_tenancies"], {"limit": limit})]


def find_tenancy(conn: Connection, named: str) -> UUID:
    """The tenancy of this id, of the project of this id, or whose id begins so; the first kind that fits counts.

    A whole id is taken as it is when nothing fits: the configuration may know it. Raises UsageError `unknown-tenancy`,
    `ambiguous-tenancy`.
    """
    whole = _parse_id(named)
    lowest, highest = _find_ends(named)
    found: list[tuple[Tenancy, int]] = []
    if named.isprintable():
        asked = {"id": whole, "named": named, "lowest": lowest, "highest": highest, "limit": _MOST_LISTED + 1}
        found = [(Tenancy(*row), kind) for *row, kind in conn.execute(_SQL["find_tenancies"], asked)]
    best = [tenancy for tenancy, kind in found if kind == found[0][1]]
    if len(best) == 1:
        return best[0].id
    if best:
        raise UsageError(
            [f"{named!r} fits several tenancies:", *_list_some(best)],
            code="ambiguous-tenancy",
            hint=_which_hint(best),
            details=_details(best),
        )
    if whole is not None:
        return whole
    raise UsageError(
        f"no tenancy is called {named!r}",
        code="unknown-tenancy",
        hint="name it by its id, the beginning of its id, or its project's id; `stackctl tenancies list` shows them",
    )


def choose_tenancy(conn: Connection, named: str | None) -> UUID:
    """The tenancy named (see `find_tenancy`), or the only one there is; UsageError `usage` when there are others."""
    if named is not None:
        return find_tenancy(conn, named)
    found = list_tenancies(conn, _MOST_LISTED + 1)
    if len(found) == 1:
        return found[0].id
    if not found:
        raise UsageError("there is no tenancy in the operated database", code="usage")
    raise UsageError(
        ["there are several tenancies:", *_list_some(found)],
        code="usage",
        hint=_which_hint(found),
        details=_details(found),
    )


def is_id(text: str) -> bool:
    return _parse_id(text) is not None


def _parse_id(named: str) -> UUID | None:
    try:
        return UUID(named)
    except ValueError:
        return None


def _find_ends(named: str) -> tuple[UUID | None, UUID | None]:
    """The first and the last id that begin so; None where none can."""
    digits = named.replace("-", "")
    if not re.fullmatch(r"[0-9a-fA-F]{1,31}", digits):
        return None, None
    lowest, highest = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    is_beginning = "-" not in named or str(lowest).startswith(named.lower())
    return (lowest, highest) if is_beginning else (None, None)


def _list_some(found: Sequence[Tenancy]) -> list[str]:
    return [f"  {one}" for one in found[:_MOST_LISTED]]


def _which_hint(found: Sequence[Tenancy]) -> str:
    rest = "; `stackctl tenancies list` shows the others, too" if len(found) > _MOST_LISTED else ""
    return f"say which with --tenancy{rest}"


def _details(found: Sequence[Tenancy]) -> dict[str, list[str]]:
    return {"tenancies": [str(one.id) for one in found[:_MOST_LISTED]]}


def read_layers(conn: Connection, tenancy: UUID) -> ConfigLayers:
    """Raises UsageError `unknown-tenancy`."""
    row = conn.execute(_SQL["read_layers"], {"tenancy": tenancy}).fetchone()
    if row is None:
        raise UsageError(
            f"tenancy {tenancy} does not exist in the operated database",
            code="unknown-tenancy",
            hint="`stackctl tenancies list` shows those that are there",
        )
    project, branch, branch_config, environment_config = row
    return ConfigLayers(tenancy, project, branch, branch_config, environment_config)


def write_config(conn: Connection, layers: ConfigLayers, config: Mapping[str, Any]) -> None:
    """Make `config` the environment's JSON; one transaction, in which both layers are still as they were read.

    Raises StateError `changed-meanwhile`.
    """
    key = {"project": layers.project, "branch": layers.branch}
    with conn.transaction():
        conn.execute(_SQL["set_lock_timeout"], {"timeout": LOCK_TIMEOUT})
        now = conn.execute(_SQL["lock_layers"], key).fetchone()
        if now != (layers.branch_config, layers.environment_config):
            raise _changed_meanwhile(layers)
        statement = "insert_config" if layers.environment_config is None else "update_config"
        if conn.execute(_SQL[statement], key | {"config": json.dumps(config)}).rowcount != 1:
            raise _changed_meanwhile(layers)


def _changed_meanwhile(layers: ConfigLayers) -> StateError:
    return StateError(
        f"the configuration of tenancy {layers.tenancy} was changed by someone else in the meantime; nothing was"
        " written",
        code="changed-meanwhile",
        hint="look at the difference again, and try again",
    )
