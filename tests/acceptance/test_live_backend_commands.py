"""The installed command on a live backend's database: no trigger, the application marks, tenancies say where to."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import StackctlError
from tests.backend import (
    BRANCHES,
    MINE,
    OTHER,
    Project,
    add_channel,
    add_user,
    differences,
    ended,
    fetch,
    one,
    populate,
    wait_for,
)  # fmt: skip
from tests.live_backend import Application, build, configure, database, from_backend, triggers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect


@pytest.fixture
def live(empty_db: str, connect: Connect) -> psycopg.Connection[Any]:
    conn = connect(empty_db, autocommit=True)
    build(conn)
    return conn


@pytest.fixture
def project(tmp_path: Path, empty_db: str) -> Project:
    return from_backend(Project(tmp_path, empty_db), change_capture="application")


def checks(project: Project) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    outcome = project.run("doctor", "--json")
    found: dict[str, list[dict[str, Any]]] = {}
    for check in outcome.json["checks"]:
        found.setdefault(check["name"], []).append(check)
    return outcome.code, found


def copied(pipeline: Pipeline) -> bool:
    """Whether all copies are equal to their source; before the first sync there are none."""
    try:
        return not differences(pipeline)
    except StackctlError:
        return False


def run_until(project: Project, condition: Callable[[], bool]) -> None:
    """`stackctl run` from now until the condition holds, and its end by a signal."""
    running = project.start("run")
    try:
        wait_for(condition)
    finally:
        running.send_signal(signal.SIGTERM)
        assert ended(running).code == 0


def test_from_the_first_look_to_equal_copies(live: psycopg.Connection[Any], project: Project, external_db: str) -> None:
    application = Application(live)
    kept = populate(live)
    gone = add_user(live, displayName="gone")
    configure(live, database(external_db))
    # Before: what lacks is named, and nothing is changed by looking.
    code, found = checks(project)
    assert (code, found["migrations"][0]["status"]) == (1, "error")

    assert project.run("migrate", "up").code == 0
    assert triggers(live) == []
    assert project.run("migrate", "status", "--check").code == 0
    code, found = checks(project)
    assert code == 0
    assert {check["name"] for each in found.values() for check in each if check["status"] != "ok"} == set()
    assert "verify --repair" in found["capture"][0]["message"]

    pipeline = project.pipeline()
    run_until(project, lambda: copied(pipeline))

    application.update("ProjectUser", {"tenancyId": MINE, "projectUserId": kept.user}, displayName="changed")
    application.delete("ProjectUser", {"tenancyId": MINE, "projectUserId": gone})
    second = add_user(live, displayName="second")
    add_channel(live, second, "second@example.com")
    run_until(project, lambda: copied(pipeline))

    # The database takes the channel along, and the application does not see it: that is left over.
    application.delete("ProjectUser", {"tenancyId": MINE, "projectUserId": second})
    run_until(project, lambda: {comparison.mapping for comparison in differences(pipeline)} == {"contact_channels"})
    assert project.run("run", "--max-duration", "2s").code == 0
    assert {comparison.mapping for comparison in differences(pipeline)} == {"contact_channels"}
    assert project.run("verify").code == 1
    assert project.run("verify", "--repair").code == 0
    assert differences(pipeline) == []


def test_a_new_tenancy_is_taken_up_while_run_works(
    live: psycopg.Connection[Any], project: Project, external_db: str, connect: Connect
) -> None:
    assert project.run("migrate", "up").code == 0
    populate(live, OTHER)
    copy = connect(external_db, autocommit=True)
    running = project.start("run", "--json")
    try:
        # Its entry was taken, and there was nowhere to send it.
        wait_for(lambda: one(live, 'SELECT bool_and(NOT "shouldUpdateSequenceId") FROM "ProjectUser"')
                 and not fetch(live, 'SELECT 1 FROM "OutgoingRequest"'))  # fmt: skip
        configure(live, database(external_db), OTHER)

        def arrived() -> Any:
            if one(copy, "SELECT to_regclass('users')") is None:
                return None
            return fetch(copy, "SELECT 1 FROM users")

        wait_for(arrived)
    finally:
        running.send_signal(signal.SIGTERM)
        assert ended(running).code == 0


def test_a_secret_of_a_tenancy_is_told_nowhere(live: psycopg.Connection[Any], project: Project) -> None:
    assert project.run("migrate", "up").code == 0
    populate(live)
    add_user(live, OTHER)
    configure(live, {
        "dbSync.externalDatabases.analytics": {
            "type": "postgres", "connectionString": "postgresql://app:hunter2secret@127.0.0.1:1/x"},
        "dbSync": {"externalDatabases": {
            "old": {"type": "mysql", "connectionString": "mysql://app:hunter2secret@h/d"},
            "odd": {"type": "postgres", "connectionString": "host=127.0.0.1 port=1 password='hunter2secret' x=1"},
            "mixed": {"type": "postgres", "url": "hunter2secret", "connectionString": ["hunter2secret"]}}},
    })  # fmt: skip
    configure(live, {"dbSync": "hunter2secret"}, OTHER)
    for arguments in (
        ("config", "show"), ("config", "show", "--json"), ("sequence", "--json"), ("poll", "--json"),
        ("sync", "--all", "--json"), ("sync", "--all", "--debug"), ("status",), ("status", "--json"),
        ("doctor",), ("doctor", "--json", "--debug"), ("queue", "list", "--json"), ("enqueue", "--all"),
        ("verify", "--json"),
        ("run", "--max-duration", "1s", "--debug"),
    ):  # fmt: skip
        outcome = project.run(*arguments)
        assert "hunter2secret" not in outcome.stdout + outcome.stderr, arguments
        assert outcome.code in (0, 1), (arguments, outcome.stderr)
    assert not fetch(live, "SELECT 1 FROM stackctl.delivery WHERE last_error LIKE '%%hunter2secret%%'")


def test_what_the_commands_say_of_a_broken_entry(
    live: psycopg.Connection[Any], project: Project, external_db: str
) -> None:
    assert project.run("migrate", "up").code == 0
    populate(live)
    configure(live, {"dbSync": {"externalDatabases": {
        "old": {"type": "mysql", "connectionString": "mysql://app:hunter2secret@h/d"},
        **database(external_db)["dbSync"]["externalDatabases"]}}})  # fmt: skip
    assert project.run("sequence").code == 0
    outcome = project.run("sync", "--all", "--json")
    assert outcome.code == 1
    assert {d["database"]: (d["type"], d["status"]) for d in outcome.json["databases"]} == {
        "analytics": ("postgres", "ok"),
        "old": ("mysql", "error"),
    }
    ((tenancy),) = project.run("status", "--json").json["tenancies"]
    assert {d["database"]: d["status"] for d in tenancy["databases"]} == {"analytics": "ok", "old": "error"}
    assert project.run("status", "--check").code == 1
    code, found = checks(project)
    assert (code, found[f"{MINE}/old"][-1]["status"], found[f"{MINE}/analytics"][-1]["status"]) == (1, "error", "ok")
    shown = json.dumps(project.run("config", "show", "--json").json["tenancies"])
    assert "analytics" in shown
    assert "not supported" in shown


def test_one_place_for_two_tenancies_is_refused(
    live: psycopg.Connection[Any], project: Project, external_db: str
) -> None:
    assert project.run("migrate", "up").code == 0
    for tenancy in BRANCHES:
        configure(live, database(external_db), tenancy)
    outcome = project.run("sync", "--all", "--json")
    assert outcome.code == 5
    assert {d["error_code"] for d in outcome.json["databases"]} == {"shared-database"}
    assert checks(project)[0] == 1


def test_auto_says_what_it_found(live: psycopg.Connection[Any], project: Project) -> None:
    project.settings["database"]["change_capture"] = "auto"
    assert project.run("migrate", "up").code == 0
    assert triggers(live) == []
    code, found = checks(project)
    assert (code, found["capture"][0]["status"]) == (0, "warning")
    assert "change_capture: application" in found["capture"][0]["hint"]
    project.settings["database"]["change_capture"] = "triggers"
    assert checks(project)[1]["capture"][0]["status"] == "error"
    assert project.run("migrate", "status", "--check").code == 1
    assert project.run("migrate", "up").code == 0
    assert triggers(live)
    assert checks(project)[1]["capture"][0]["status"] == "ok"


def test_a_database_never_migrated(project: Project) -> None:
    for arguments in (("sync", "--all"), ("run", "--max-duration", "1s"), ("enqueue", "--all")):
        outcome = project.run(*arguments)
        assert outcome.code == 5
        assert "migrate up" in outcome.stderr
    outcome = project.run("config", "show", "--json")
    assert (outcome.code, outcome.json["tenancies"]) == (0, [])


@pytest.mark.parametrize("local", ["refuse", "allow"])
def test_a_tenancy_reaches_this_machine_only_where_the_operator_lets_it(
    live: psycopg.Connection[Any], project: Project, external_db: str, local: str
) -> None:
    configure(live, database(external_db))
    project.settings["external_databases_local"] = local
    assert project.run("migrate", "up").code == 0
    synced = project.run("sync", "--all", "--json")
    assert (synced.code, "local-address" in synced.stdout) == ((0, False) if local == "allow" else (1, True))
