"""`stackctl demo`, as a new user runs it: once, again, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.mapping.files import list_mapping_files
from tests import forked

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def stackctl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return forked.run(arguments, cwd=cwd)


def document(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def played(environment: Path) -> Path:
    """A folder with a demo in it that was run twice."""
    # Not below pytest's folder, which another run of pytest closes for all but its own user.
    directory = environment / "d" / "demo"
    directory.parent.mkdir()
    first = document(stackctl("demo", str(directory), "--json", cwd=directory.parent))
    again = document(stackctl("demo", str(directory), "--json", cwd=directory.parent))
    for result in (first, again):
        assert result["ok"]
        assert {check["mapping"] for check in result["checks"]} == {
            path.stem for path in list_mapping_files(find_bundled("mappings"))
        }
        assert all(check["source_rows"] == check["target_rows"] > 0 for check in result["checks"])
    return directory


def test_the_left_configuration_works_with_the_other_commands(played: Path) -> None:
    status = document(stackctl("status", "--json", cwd=played))
    copies = [copy for t in status["tenancies"] for d in t["databases"] for copy in d["mappings"]]
    assert len(copies) == 2 * len(list_mapping_files(find_bundled("mappings")))
    assert all(copy["backlog"] == 0 and copy["cursor"] > 0 for copy in copies)
    assert status["queue"]["pending"] == 0
    assert document(stackctl("doctor", "--json", cwd=played))["ok"]
    assert document(stackctl("migrate", "status", "--check", "--json", cwd=played))["pending"] == []
    assert document(stackctl("sync", "--all", "--json", cwd=played))["ok"]
    assert document(stackctl("mappings", "check", "--json", cwd=played)) == {"ok": True, "findings": []}


def test_the_configuration_works_from_elsewhere(played: Path, tmp_path: Path) -> None:
    config = str(played / "stackctl.yaml")
    assert document(stackctl("--config", config, "fuse", "show", "--json", cwd=tmp_path))["fuses"]["poller"] is True


def test_deleted_users_are_gone_and_returned_ones_are_back(played: Path) -> None:
    with sqlite3.connect(played / "warehouse.db") as conn:
        back = conn.execute(
            "SELECT count(*) FROM users WHERE display_name = 'Back again' AND primary_email IS NOT NULL"
        )
        assert back.fetchone()[0] > 0
        orphans = "SELECT count(*) FROM contact_channels WHERE user_id NOT IN (SELECT id FROM users)"
        assert conn.execute(orphans).fetchone()[0] == 0
    conn.close()


def test_a_second_demo_in_the_same_folder_leaves_the_first_one_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert stackctl("--version", cwd=tmp_path).returncode == 0  # what forks the second is ready
    first = forked.start(["demo", "twice"], cwd=tmp_path, fresh=True)
    assert first.stdout is not None
    first.stdout.readline()  # it has begun
    first.send_signal(signal.SIGSTOP)  # and can't be done before the second looks
    second = stackctl("demo", "twice", cwd=tmp_path)
    first.send_signal(signal.SIGCONT)
    assert (second.returncode, "another demo is running" in second.stderr) == (5, True)
    rest = first.communicate(timeout=120)[0]
    assert (first.returncode, "all equal" in rest) == (0, True)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stackctl.yaml").write_text("version: 1\n")
    done = stackctl("demo", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 5
    assert "was not made by `stackctl demo`" in done.stderr
    assert (tmp_path / "stackctl.yaml").read_text() == "version: 1\n"


def test_only_its_owner_may_write_the_configuration(tmp_path: Path, environment: Path) -> None:
    folder = environment / "open-umask"
    done = forked.run(("demo", folder, "--quiet"), cwd=tmp_path, before="import os; os.umask(0)")
    assert done.returncode == 0, done.stderr
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in (".", "stackctl.yaml", "warehouse.db")}
    assert modes == {".": 0o755, "stackctl.yaml": 0o600, "warehouse.db": 0o600}
