"""A command that fails while external databases are still being asked ends with its own exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backend import MINE, settle

if TYPE_CHECKING:
    from tests.backend import Connection, Project


@pytest.mark.parametrize("command", ["status", "mappings diff"])
def test_a_thread_inside_duckdb_does_not_abort_the_process(command: str, project: Project, source: Connection) -> None:
    duckdb = pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
    settle(project.duckdb(MINE).pipeline())
    project.settings["mappings_dir"] = ["bundled", "maps"]
    (project.directory / "maps").mkdir()
    (project.directory / "maps" / "broken.yaml").write_text("name: m1\n  bad: [\n")
    with duckdb.connect(str(project.directory / "copy.duckdb")):  # it is asked for a while
        for _ in range(4):
            outcome = project.run(*command.split(), fresh=True)
            assert (outcome.code, "terminate called" in outcome.stderr) == (3, False), outcome.stderr
