"""A tenancy's configuration is written only as it was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.backend.tenancies import merge_config, read_layers, remove_paths, write_config
from stackctl.core.errors import StateError
from tests.backend import MINE

if TYPE_CHECKING:
    from tests.conftest import Connect

pytestmark = pytest.mark.quick

Connection = psycopg.Connection[Any]


def test_a_concurrent_change_is_not_overwritten(source: Connection, connect: Connect, migrated_db: str) -> None:
    first, second = connect(migrated_db), connect(migrated_db)
    held, other = read_layers(first, MINE), read_layers(second, MINE)
    write_config(second, other, {"a": 1})
    second.commit()
    with pytest.raises(StateError, match="changed by someone else"):
        write_config(first, held, {"a": 2})
    first.rollback()
    held, other = read_layers(first, MINE), read_layers(second, MINE)
    write_config(first, held, {"a": 3})
    first.commit()
    second.rollback()
    with pytest.raises(StateError, match="changed by someone else"):
        write_config(second, other, {"a": 4})
    second.rollback()
    assert read_layers(second, MINE).get("a") == 3


def test_the_environment_overrides_the_branch() -> None:
    branch = {"auth": {"x": {"y": 1, "z": 1}}, "b": 1}
    assert merge_config({"auth.x.y": 2}, branch) == {"auth": {"x": {"y": 2, "z": 1}}, "b": 1}
    assert merge_config({"auth": {"w": 1}}, branch) == {"auth": {"w": 1}, "b": 1}
    assert merge_config({"auth.x.y": 2}, {"auth.x.y.w": 1, "b": 1}) == {"auth": {"x": {"y": 2}}, "b": 1}
    assert branch == {"auth": {"x": {"y": 1, "z": 1}}, "b": 1}


def test_only_the_paths_named_are_taken_out() -> None:
    config = {"a": {"b": {"c": 1}, "b.d": 2, "bb": 3}, "a.b": 4, "a.b.e": 5, "a.bb": 6}
    assert remove_paths(config, ["a.b"]) == {"a": {"bb": 3}, "a.bb": 6}
