"""Bad input to the pipeline's commands: one clear error, its exit code, and nothing half done."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import uuid
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.backend import MINE, OTHER, Connection, Outcome, Project, add_user, fetch, one, populate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stackctl.postgres.embedded import EmbeddedServer
    from tests.conftest import Connect

COMMANDS = pytest.mark.parametrize("command", [("sequence",), ("sync", "--all"), ("status",)], ids=str)
STRANGER = uuid.UUID(int=0xFF)


def refused(outcome: Outcome, code: int, name: str | None = None) -> Outcome:
    """One `error:` line, at most one hint, no traceback, and the document under --json."""
    assert outcome.code == code, outcome
    lines = outcome.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, outcome
    assert sum(line.startswith("hint: ") for line in lines) <= 1
    assert "Traceback" not in outcome.stderr
    if outcome.stdout:
        # Whatever a loop said before it is a line of its own.
        error = outcome.lines[-1]["error"]
        assert set(error) == {"code", "message", "hint", "details"}
        assert error["code"] == name
        assert f"error: {error['message']}" in lines
    return outcome


def complaint(project: Project, *arguments: object, code: int, name: str) -> str:
    """What the refused command says on stderr."""
    outcome = refused(project.run(*arguments, "--json"), code, name)
    assert outcome.stdout
    return outcome.stderr


@pytest.fixture
def elsewhere(tmp_path: Path) -> Project:
    """A project that names no database."""
    return Project(tmp_path)


@COMMANDS
def test_no_database_named(command: tuple[str, ...], elsewhere: Project) -> None:
    elsewhere.sqlite(MINE)
    text = complaint(elsewhere, *command, code=3, name="no-database")
    assert "--database-url" in text
    assert not (elsewhere.directory / "copy.db").exists()


def test_without_json_stdout_stays_empty(elsewhere: Project) -> None:
    outcome = refused(elsewhere.run("sequence"), 3)
    assert outcome.stdout == ""
    assert outcome.stderr.splitlines()[0] == "error: no database is named"


@COMMANDS
def test_unreachable_host(command: tuple[str, ...], elsewhere: Project) -> None:
    elsewhere.sqlite(MINE)
    url = "postgresql://u:geheim99@127.0.0.1:1/x"
    text = complaint(elsewhere, *command, "--database-url", url, code=4, name="unreachable")
    assert "127.0.0.1:1" in text
    assert "geheim99" not in text


def test_a_host_without_an_address(elsewhere: Project) -> None:
    url = "postgresql://u@no-such-host.invalid/x"
    assert "no-such-host.invalid" in complaint(elsewhere, "sequence", "--database-url", url, code=4, name="unreachable")


@pytest.fixture
def guarded(server: EmbeddedServer, migrated_db: str) -> Iterator[str]:
    """The URL of `migrated_db` for a role that needs its password, which is `geheim99`."""
    role = f"guarded_{secrets.token_hex(4)}"
    hba = server.directory / "data" / "pg_hba.conf"
    before = hba.read_text()
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'geheim99'").format(sql.Identifier(role)))
        hba.write_text(f"local all {role} scram-sha-256\n{before}")
        conn.execute("SELECT pg_reload_conf()")
        yield migrated_db.replace("postgres@", f"{role}:geheim99@")
        hba.write_text(before)
        conn.execute("SELECT pg_reload_conf()")
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_wrong_password(elsewhere: Project, guarded: str) -> None:
    assert elsewhere.run("sequence", "--database-url", guarded).code == 0
    for url in (guarded.replace("geheim99", "falsch77"), guarded.replace(":geheim99", "")):
        text = complaint(elsewhere, "sequence", "--database-url", url, code=4, name="auth-failed")
        assert "falsch77" not in text
    unknown = re.sub("//[^@]*@", "//nobody_of_that_name@", guarded)
    text = complaint(elsewhere, "sequence", "--database-url", unknown, code=4, name="auth-failed")
    assert 'credentials of nobody_of_that_name: role "nobody_of_that_name" does not exist' in text


def test_wrong_password_at_the_target(project: Project, source: Connection, guarded: str, external_db: str) -> None:
    name = external_db.rpartition("/external_")[2].split("?")[0]
    url = guarded.replace(guarded.rpartition("/test_")[2].split("?")[0], name).replace("/test_", "/external_")
    project.postgres(MINE, url.replace("geheim99", "falsch77")).sqlite(OTHER)
    outcome = project.run("sync", "--all", "--json")
    assert outcome.code == 1
    broken, healthy = outcome.json["databases"]
    assert (broken["error_code"], healthy["status"]) == ("auth-failed", "ok")
    assert "falsch77" not in outcome.stdout + outcome.stderr


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on the loopback that does what `answer` does with each connection; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    if over.is_set():
                        connection.close()
                        return
                    kept.append(connection)
                    answer(connection)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        socket.create_connection(server.getsockname()).close()
        thread.join()
        for connection in kept:
            connection.close()


def speak_http(connection: socket.socket) -> None:
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.close()


def hang_up(connection: socket.socket) -> None:
    connection.close()


@pytest.mark.parametrize("answer", [speak_http, hang_up])
def test_not_postgresql(answer: Callable[[socket.socket], None], elsewhere: Project) -> None:
    with listening(answer) as port:
        url = f"postgresql://u@127.0.0.1:{port}/x"
        text = complaint(elsewhere, "sequence", "--database-url", url, code=4, name="not-postgresql")
    assert f"127.0.0.1:{port}" in text


def test_accepts_and_never_answers(elsewhere: Project) -> None:
    with listening(lambda connection: None) as port:
        # libpq takes two seconds at the least.
        url = f"postgresql://u@127.0.0.1:{port}/x?connect_timeout=1"
        outcome = refused(elsewhere.run("sequence", "--database-url", url), 4)
    assert "timeout" in outcome.stderr


def test_a_target_that_never_answers(project: Project, source: Connection) -> None:
    with listening(lambda connection: None) as port:
        project.postgres(MINE, f"postgresql://u@127.0.0.1:{port}/x?connect_timeout=1").sqlite(OTHER)
        outcome = project.run("sync", "--all", "--json")
    assert (outcome.code, [d["status"] for d in outcome.json["databases"]]) == (1, ["error", "ok"])


@pytest.mark.parametrize("url", ["mysql://u:geheim99@h/x", "nonsense", "postgresql://u:geheim99@h:port/x?nope=1", ""])
def test_not_a_url(url: str, elsewhere: Project) -> None:
    outcome = refused(elsewhere.run("sequence", "--database-url", url), 3)
    assert "geheim99" not in outcome.stderr


def test_a_database_that_does_not_exist(elsewhere: Project, migrated_db: str) -> None:
    url = migrated_db.replace("/test_", "/nowhere_")
    assert "nowhere_" in complaint(elsewhere, "sequence", "--database-url", url, code=4, name="no-such-database")


@pytest.mark.parametrize(
    "command",
    [("sequence",), ("poll",), ("sync", "--all"), ("run",), ("status",), ("enqueue", "--all"), ("queue", "list"),
     ("queue", "retry", "--all"), ("fuse", "show"), ("fuse", "off", "poller")],
    ids=str,
)  # fmt: skip
def test_never_migrated(command: tuple[str, ...], elsewhere: Project, empty_db: str, connect: Connect) -> None:
    elsewhere.sqlite(MINE)
    elsewhere.settings["database"] = {"url": empty_db}
    text = refused(elsewhere.run(*command, "--json"), 5, "not-migrated").stderr
    assert "migrate up" in text
    assert fetch(connect(empty_db), "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    assert not (elsewhere.directory / "copy.db").exists()


@pytest.fixture
def reader(server: EmbeddedServer, migrated_db: str) -> Iterator[str]:
    """The URL of `migrated_db` for a role that may only read."""
    role = f"reader_{secrets.token_hex(4)}"
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE pg_read_all_data").format(sql.Identifier(role)))
        yield migrated_db.replace("postgres@", f"{role}@")
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("how", ["privileges", "setting"])
@pytest.mark.parametrize(
    "command", [("sequence",), ("poll",), ("run",), ("enqueue", "--all"), ("fuse", "off", "poller")], ids=str
)
def test_a_read_only_role(
    command: tuple[str, ...], how: str, project: Project, source: Connection, reader: str, migrated_db: str
) -> None:
    project.sqlite(MINE)
    user = add_user(source)
    url = reader if how == "privileges" else f"{migrated_db}&options=-c%20default_transaction_read_only%3Don"
    name = "permission-denied" if how == "privileges" else "read-only"
    refused(project.run(*command, "--database-url", url, "--json"), 4, name)
    stamped = 'SELECT "sequenceId" FROM "ProjectUser" WHERE "projectUserId" = %s'
    assert one(source, stamped, user) is None
    assert fetch(source, 'SELECT 1 FROM "OutgoingRequest" UNION ALL SELECT 1 FROM "ExternalDbSyncMetadata"') == []


def test_a_reader_may_look(project: Project, source: Connection, reader: str) -> None:
    project.sqlite(MINE)
    for command in (("status",), ("queue", "list"), ("fuse", "show")):
        assert project.run(*command, "--database-url", reader).code == 0


@pytest.mark.parametrize(
    ("arguments", "name", "says"),
    [
        (("sync", STRANGER), "unknown-tenancy", str(STRANGER)),
        (("sync", "not-a-uuid"), "unknown-tenancy", "not-a-uuid"),
        (("sync",), "usage", "--all"),
        (("sync", MINE, "--all"), "usage", "--all"),
        (("sync", "--all", "--mapping", "user"), "unknown-mapping", "users"),
        (("sync", "--all", "--database", "locl"), "unknown-database", "local"),
        (("enqueue",), "usage", "--all"),
        (("enqueue", STRANGER), "unknown-tenancy", str(STRANGER)),
        (("enqueue", MINE, "--all"), "usage", "--all"),
        (("queue", "retry", "nothing"), "unknown-database", "nothing"),
        (("queue", "retry"), "usage", "--all"),
        (("status", "--tenancy", STRANGER), "unknown-tenancy", str(STRANGER)),
        (("sequence", "--interval", "1s"), "usage", "--loop"),
        (("poll", "--loop", "--interval", "200000d"), "usage", "--interval: '200000d' is longer"),
        (("sequence", "--max-duration", "soon"), "usage", "soon"),
        (("sequence", "--batch-size", "0"), "usage", "--batch-size"),
        (("poll", "--batch-size", "x"), "usage", "--batch-size"),
        (("fuse", "off", "engine"), "usage", "engine"),
        (("sequense",), "usage", "sequense"),
    ],
    ids=str,
)
def test_bad_usage(arguments: tuple[object, ...], name: str, says: str, project: Project, source: Connection) -> None:
    project.sqlite(MINE)
    text = complaint(project, *arguments, code=2, name=name)
    assert says in text
    assert not (project.directory / "copy.db").exists()
    assert fetch(source, 'SELECT 1 FROM "OutgoingRequest"') == []


def test_a_configured_tenancy_that_does_not_exist(project: Project, source: Connection) -> None:
    project.sqlite(MINE).sqlite(STRANGER, "strange.db")
    outcome = project.run("sync", "--all", "--json")
    assert (outcome.code, [d["status"] for d in outcome.json["databases"]]) == (1, ["ok", "error"])
    assert str(STRANGER) in outcome.json["databases"][1]["error"]
    assert not (project.directory / "strange.db").exists()
    complaint(project, "sync", STRANGER, code=2, name="unknown-tenancy")


def test_a_mapping_that_the_configuration_misspells(project: Project, source: Connection) -> None:
    project.sqlite(MINE, mappings=["users", "contact_chanels"])
    text = complaint(project, "sync", "--all", code=3, name="unknown-mapping")
    assert "contact_channels" in text


@COMMANDS
def test_a_mapping_file_that_is_wrong(command: tuple[str, ...], project: Project, source: Connection) -> None:
    folder = project.directory / "mine"
    folder.mkdir()
    (folder / "bad.yaml").write_text("name: bad\nsource: ProjectUser\ntarget: bad\nkey: {id: projectUserId}\n"
                                     "columns: {id: uuid}\nselect: SELECT * FROM \"ProjectUser\"\n")  # fmt: skip
    project.settings["mappings_dir"] = "./mine"
    outcome = refused(project.sqlite(MINE).run(*command), 3)
    assert "bad.yaml" in outcome.stderr


@COMMANDS
def test_a_broken_configuration(command: tuple[str, ...], project: Project, source: Connection) -> None:
    project.settings["synk"] = {"batch_size": 1}
    assert "sync" in refused(project.run(*command), 3).stderr
    del project.settings["synk"]
    project.settings["tenancies"] = {"no-uuid": {}}
    assert "no-uuid" in refused(project.run(*command), 3).stderr


def test_an_unset_variable_stops_only_the_database_that_uses_it(project: Project, source: Connection) -> None:
    populate(source)
    project.sqlite(MINE).postgres(MINE, "${NOT_SET_ANYWHERE}", "unset")
    outcome = project.run("sync", "--all", "--json")
    assert outcome.code == 1
    healthy, unset = outcome.json["databases"]
    assert (healthy["status"], unset["status"]) == ("ok", "error")
    assert "NOT_SET_ANYWHERE" in unset["error"]


def test_two_tenancies_on_one_external_database(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    project.postgres(MINE, external_db)
    assert project.run("sync", "--all").code == 0
    project.postgres(OTHER, external_db, "again")
    for command in (("sync", "--all"), ("poll",), ("run",)):
        text = refused(project.run(*command, "--json"), 5, "shared-database").stderr
        assert str(MINE) in text
        assert str(OTHER) in text
    # By another spelling the marker inside tells them apart.
    project.postgres(OTHER, external_db.replace("&port", "/&port"), "again")
    outcome = project.run("sync", OTHER, "--json")
    assert (outcome.code, outcome.json["databases"][0]["error_code"]) == (5, "other-tenancy")
    assert one(connect(external_db), "SELECT tenancy_id FROM _stack_sync_owner") == MINE


def test_the_operated_database_as_a_target(project: Project, source: Connection, migrated_db: str) -> None:
    outcome = project.postgres(MINE, migrated_db).run("sync", "--all", "--json")
    assert (outcome.code, outcome.json["databases"][0]["error_code"]) == (5, "operated-database")
    assert one(source, "SELECT to_regclass('_stack_sync_metadata')") is None


def test_a_target_table_with_other_columns(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    outside = connect(external_db, autocommit=True)
    outside.execute("CREATE TABLE users (id int)")
    outcome = project.postgres(MINE, external_db).run("sync", "--all", "--json")
    assert outcome.code == 1
    (database,) = outcome.json["databases"]
    assert database["error_code"] == "table-differs"
    for part in ("users", "id is integer, not uuid", "display_name is missing"):
        assert part in database["error"]
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0"
    assert fetch(outside, columns) == [("id",)]
