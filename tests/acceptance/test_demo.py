"""`stackctl demo`, as a new user runs it: once, again, and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
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


def stackctl(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
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


def test_the_server_is_kept_for_the_next_command_and_started_again_when_it_was_killed(played: Path) -> None:
    data = played / "postgres" / "data"
    before = int((data / "postmaster.pid").read_text().split()[0])
    assert document(stackctl("fuse", "show", "--json", cwd=played))
    assert int((data / "postmaster.pid").read_text().split()[0]) == before
    os.kill(before, signal.SIGQUIT)
    assert document(stackctl("fuse", "show", "--json", cwd=played))
    assert int((data / "postmaster.pid").read_text().split()[0]) != before


def test_the_stand_in_for_stripe_is_given_no_key_of_the_environment(played: Path) -> None:
    """Nor asked by way of a proxy; and what it was told, the next process knows."""
    environ = os.environ | {"STRIPE_API_KEY": "sk_live_real", "HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""}
    status = forked.run(("payments", "status", "--tenancy", "acme", "--json"), cwd=played, env=environ)
    assert document(status)["account"] == "acct_acme"
    refunds = document(stackctl("refunds", "list", "--json", cwd=played))["refunds"]
    assert [one["status"] for one in refunds] == ["submitted"]
    assert stackctl("refunds", "list", "--reconcile", cwd=played).returncode == 1
    assert stackctl("refunds", "resume", "--all", cwd=played).returncode == 0
    bought = "0d4a9a10-5a0b-4d8e-9f2b-1c2d3e4f5a6b"
    made = document(stackctl("refunds", "create", bought, "--amount", "5.00", "--yes", "--json", cwd=played))
    assert made["refund"]["status"] == "succeeded"
    assert stackctl("refunds", "list", "--reconcile", cwd=played).returncode == 0
    objects = played / "stripe" / "objects.json"
    kept = objects.read_bytes()
    for damaged in (b"", b"[]", kept[:1000]):
        objects.write_bytes(damaged)
        refused = stackctl("payments", "status", "--tenancy", "acme", "--json", cwd=played)
        assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (3, "stand-in-unusable")
    objects.write_bytes(kept)


def test_what_was_changed_is_not_wiped_unasked(played: Path) -> None:
    rules = played / "sign-up-rules.yaml"
    written = rules.read_text()
    rules.write_text(written + "# mine\n")
    assert stackctl("users", "restrict", "ada@example.com", "--reason", "x", "--yes", cwd=played).returncode == 0
    refused = stackctl("demo", played, cwd=played)
    assert refused.returncode == 5
    assert "sign-up-rules.yaml and the database were changed" in refused.stderr
    assert rules.read_text().endswith("# mine\n")
    assert document(stackctl("users", "show", "ada@example.com", "--json", cwd=played))["user"]["restricted"]
    assert stackctl("demo", played, "--yes", "--quiet", cwd=played).returncode == 0
    assert rules.read_text() == written


def test_a_server_whose_files_are_half_deleted_is_named_with_the_way_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data = tmp_path / "half" / "postgres" / "data"
    data.mkdir(parents=True, mode=0o700)
    (data / "PG_VERSION").write_text("18\n")
    if os.geteuid() == 0:
        for path in (data, data.parent, data / "PG_VERSION"):
            shutil.chown(path, "postgres")
    done = stackctl("demo", "half", cwd=tmp_path)
    assert (done.returncode, "rm -r" in done.stderr) == (4, True), done.stderr


def test_a_folder_that_nobody_may_write_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    as_nobody = "import os; os.geteuid() or (os.setgroups([]), os.setgid(65534), os.setuid(65534))"
    done = forked.run(("demo", tmp_path / "mine"), cwd=tmp_path, before=as_nobody)
    assert done.returncode == 2
    assert "mine can't be used: Permission denied" in done.stderr and "hint: name another folder" in done.stderr


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
    names = (".", "stackctl.yaml", "warehouse.db", "sign-up-rules.yaml", "stripe/objects.json")
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in names}
    assert modes == {".": 0o755} | dict.fromkeys(names[1:], 0o600)


def test_what_was_deleted_is_named_with_the_way_out(played: Path) -> None:
    """The last test of this folder: the server is beyond repair after it."""
    for name, line, code, said in (
        ("warehouse.db", "verify", 1, "warehouse.db does not exist (load it: `stackctl sync --all`"),
        ("sign-up-rules.yaml", "rules list", 3, "sign-up-rules.yaml can't be read"),
        ("stripe/objects.json", "payments status --tenancy acme", 3, "`stackctl demo DIR` makes a new demo"),
    ):
        kept = (played / name).rename(played / "kept")
        done = stackctl(*line.split(), cwd=played)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
        kept.rename(played / name)
    shutil.rmtree(played / "postgres" / "data" / "base" / "5")  # the database `postgres`
    done = stackctl("demo", played, "--yes", cwd=played)
    assert (done.returncode, f"rm -r {played}" in done.stderr) == (4, True), done.stderr
