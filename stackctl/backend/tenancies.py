"""A tenancy's configuration in the operated database: its branch's JSON, overridden by its environment's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import StateError, UsageError
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from stackctl.postgres.connect import Connection

LOCK_TIMEOUT = "10s"  # for which a write waits for whoever holds the row
_MOST_DEPTH = 40  # of objects in objects

_SQL = load_statements(__file__)


def merge_config(
    config: Mapping[str, Any], base: Mapping[str, Any] | None = None, depth: int = _MOST_DEPTH
) -> dict[str, Any]:
    """Nested objects for a configuration in which any key may be a path with dots, laid over `base`.

    Each key sets what stands at its path, whole; of two in one object, the one with more dots comes later and so wins.
    JSON in the database keeps no order that could decide. A null takes away.
    """
    found: dict[str, Any] = dict(base or {})
    for key in sorted(config, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner = found
        for name in path:
            below = inner.get(name)
            inner[name] = dict(below) if isinstance(below, dict) else {}
            inner = inner[name]
        value, left = config[key], depth - len(path) - 1
        inner[last] = merge_config(value, depth=left) if isinstance(value, dict) and left > 0 else value
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
        found: Any = merge_config(self.environment_config or {}, merge_config(self.branch_config or {}))
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found


def choose_tenancy(conn: Connection, tenancy: UUID | None) -> UUID:
    """The tenancy named, or the only one there is. Raises UsageError `usage`."""
    if tenancy is not None:
        return tenancy
    found = [row[0] for row in conn.execute(_SQL["list_tenancies"], {"limit": 2})]
    if len(found) == 1:
        return found[0]
    there = "several tenancies" if found else "no tenancy"
    raise UsageError(f"there is {there} in the operated database" if not found else f"there are {there}",
                     code="usage", hint="say which with --tenancy")  # fmt: skip


def read_layers(conn: Connection, tenancy: UUID) -> ConfigLayers:
    """Raises UsageError `unknown-tenancy`."""
    row = conn.execute(_SQL["read_layers"], {"tenancy": tenancy}).fetchone()
    if row is None:
        raise UsageError(
            f"tenancy {tenancy} does not exist in the operated database",
            code="unknown-tenancy",
            hint='the ids are in the table "Tenancy"',
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
        f"the configuration of tenancy {layers.tenancy} was changed by somebody else meanwhile; nothing was written",
        code="changed-meanwhile",
        hint="look at the difference again, and try again",
    )
