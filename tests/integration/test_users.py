"""Finding a user, why it is restricted, and restricting it: against the real tables, with triggers and without."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest
import yaml

from stackctl.backend import users
from stackctl.backend.users import Restriction, find_user
from stackctl.core.bundled import find_bundled
from stackctl.core.errors import StackctlError, StateError, UsageError
from stackctl.postgres.errors import translating_errors
from stackctl.postgres.statements import load_statements
from tests.backend import (
    MINE,
    OTHER,
    add_channel,
    add_many_users,
    add_user,
    fetch,
    insert,
    one,
    sequence,
    settle,
    wait_until_blocked,
)  # fmt: skip

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backend import Project
    from tests.conftest import Connect

Connection = psycopg.Connection[Any]

MARKER = "Restricted by sign-up rule: from-afar (Unlikely country)"


@pytest.fixture
def ada(source: Connection) -> uuid.UUID:
    user = add_user(source, displayName="Ada", signUpCountryCode="DE", signUpRiskScoreBot=80)
    add_channel(source, user, "ada@example.com", usedForAuth="TRUE")
    add_channel(source, user, "ada@work.example", isPrimary=None, isVerified=False)
    return user


def record(conn: Connection, rule: str, action: str, user: uuid.UUID | None = None, tenancy: uuid.UUID = MINE) -> None:
    conn.execute("SELECT stackctl.record_sign_up_rule_trigger(%s, %s, %s, %s)", (tenancy, rule, action, user))


def run(conn: Connection, statement: str) -> None:
    conn.execute(cast("LiteralString", statement))


def row(conn: Connection, user: uuid.UUID) -> tuple[Any, ...]:
    (found,) = fetch(
        conn,
        'SELECT "restrictedByAdmin", "restrictedByAdminReason", "restrictedByAdminPrivateDetails" FROM "ProjectUser"'
        ' WHERE "projectUserId" = %s',
        user,
    )
    return found


# -- finding


@pytest.mark.quick
def test_a_user_is_found_by_id_and_by_any_address_in_either_case(source: Connection, ada: uuid.UUID) -> None:
    for who in (str(ada), ada.hex.upper(), "ada@example.com", " Ada@Example.COM ", "ADA@work.example"):
        assert find_user(source, who).id == ada, who
    with source.transaction(force_rollback=True):  # as applications wrote them that kept what was typed
        source.execute(
            """UPDATE "ContactChannel" SET "value" = 'Ada@Work.Example' WHERE "value" = 'ada@work.example'"""
        )
        for who in ("ada@work.example", "aDA@WORK.example", "Ada@Work.Example"):
            assert find_user(source, who).id == ada, who
    found = find_user(source, str(ada), MINE)
    assert (found.display_name, found.country_code, found.risk_bot, found.risk_free_trial_abuse) == ("Ada", "DE", 80, 0)
    assert (found.project, found.branch, found.anonymous) == ("p", "main", False)
    assert [(c.value, c.primary, c.verified, c.used_for_auth) for c in found.channels] == [
        ("ada@example.com", True, True, True),
        ("ada@work.example", False, False, False),
    ]


@pytest.mark.parametrize(
    ("who", "tenancy", "code"),
    [
        ("nobody@example.com", None, "unknown-user"),
        (str(uuid.UUID(int=77)), None, "unknown-user"),
        ("ada@example.com", OTHER, "unknown-user"),
        ("ada@example.com", uuid.UUID(int=77), "unknown-tenancy"),
        ("ada", None, "usage"),
        ("", None, "usage"),
        ("%@example.com", None, "unknown-user"),
        ("' OR true --@x", None, "unknown-user"),
    ],
)
def test_who_is_not_there(source: Connection, ada: uuid.UUID, who: str, tenancy: uuid.UUID | None, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_user(source, who, tenancy)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)


def test_several_matches_are_listed_and_none_is_taken(source: Connection, ada: uuid.UUID) -> None:
    namesake = add_user(source, OTHER)
    add_channel(source, namesake, "ada@example.com", OTHER)
    with pytest.raises(UsageError) as caught:
        find_user(source, "ada@example.com")
    error = caught.value
    assert error.code == "ambiguous-user"
    assert "--tenancy" in (error.hint or "")
    assert {match["user"] for match in error.details["matches"]} == {str(ada), str(namesake)}
    assert all(str(part) in error.message for part in (ada, namesake, MINE, OTHER))
    assert find_user(source, "ada@example.com", OTHER).id == namesake

    # In one tenancy an address may be the primary one of one user and a further one of another.
    third = add_user(source)
    add_channel(source, third, "ada@example.com", isPrimary=None)
    with pytest.raises(UsageError) as caught:
        find_user(source, "ada@example.com", MINE)
    assert f"{third} (not primary)" in caught.value.message
    assert "by its id" in (caught.value.hint or "")

    # The same id in two tenancies.
    add_user(source, OTHER, ada)
    with pytest.raises(UsageError) as caught:
        find_user(source, str(ada))
    assert caught.value.code == "ambiguous-user"
    assert find_user(source, str(ada), MINE).tenancy == MINE


def test_both_look_ups_use_an_index(source: Connection, ada: uuid.UUID) -> None:
    add_many_users(source, 20_000)
    source.execute(
        'INSERT INTO "ContactChannel" (id, "projectUserId", "tenancyId", "updatedAt", type, "isPrimary", "isVerified",'
        " value) SELECT gen_random_uuid(), \"projectUserId\", \"tenancyId\", now(), 'EMAIL', 'TRUE', true,"
        ' "projectUserId" || \'@example.com\' FROM "ProjectUser" WHERE "displayName" LIKE \'user %\''
    )
    source.execute("ANALYZE")
    values = {"tenancy": None, "id": ada, "spellings": ["ada@example.com"], "limit": 21}
    for name in ("find_by_id", "find_by_email"):
        plan = "\n".join(line for (line,) in source.execute("EXPLAIN " + load_statements(users.__file__)[name], values))
        assert 'Seq Scan on "ProjectUser"' not in plan, plan
        assert 'Seq Scan on "ContactChannel"' not in plan, plan


# -- why


@pytest.mark.parametrize(
    ("values", "causes"),
    [
        ({}, []),
        ({"isAnonymous": True}, ["anonymous"]),
        ({"restrictedByAdmin": True}, ["admin"]),
        ({"restrictedByAdmin": True, "restrictedByAdminReason": "spam"}, ["admin"]),
        ({"restrictedByAdmin": True, "restrictedByAdminPrivateDetails": "case 7"}, ["admin"]),
        ({"restrictedByAdmin": True, "restrictedByAdminPrivateDetails": MARKER}, ["rule from-afar"]),
        (
            {"restrictedByAdmin": True, "restrictedByAdminPrivateDetails": f"case 7\n\n{MARKER}"},
            ["rule from-afar", "admin"],
        ),
        (
            {"restrictedByAdmin": True, "restrictedByAdminPrivateDetails": MARKER, "restrictedByAdminReason": "spam"},
            ["rule from-afar", "admin"],
        ),
        ({"restrictedByAdmin": True, "restrictedByAdminPrivateDetails": f"not {MARKER}"}, ["admin"]),
    ],
)
def test_causes_as_the_row_tells_them(source: Connection, values: dict[str, Any], causes: list[str]) -> None:
    found = find_user(source, str(add_user(source, **values)))
    assert [f"{cause.kind} {cause.rule_id or ''}".strip() for cause in found.find_causes()] == causes


def test_a_recorded_trigger_names_the_rule_and_when(source: Connection) -> None:
    user = add_user(source, restrictedByAdmin=True)
    record(source, "noted", "log", user)
    record(source, "too-risky", "restrict", user)
    record(source, "too-risky", "restrict", add_user(source))
    record(source, "elsewhere", "restrict", user, OTHER)
    found = find_user(source, str(user))
    assert [(trigger.rule_id, trigger.action) for trigger in found.triggers] == [
        ("noted", "log"),
        ("too-risky", "restrict"),
    ]
    (cause,) = found.find_causes()
    assert (cause.kind, cause.rule_id, cause.at) == ("rule", "too-risky", found.triggers[1].at)
    # Lifted since, it is history and no cause.
    users.change_restriction(source, found, Restriction())
    lifted = find_user(source, str(user))
    assert (lifted.find_causes(), len(lifted.triggers)) == ([], 2)


def test_a_database_without_the_newest_migration_or_the_right_to_read_it_still_shows_users(
    source: Connection, ada: uuid.UUID
) -> None:
    with source.transaction(force_rollback=True):
        source.execute("DROP TABLE stackctl.sign_up_rule_user")
        assert find_user(source, str(ada)).triggers == ()
    read = '"ProjectUser", "ContactChannel", "Tenancy", "BranchConfigOverride", "EnvironmentConfigOverride"'
    for grant in ("", "GRANT USAGE ON SCHEMA stackctl TO reader;"):
        with source.transaction(force_rollback=True):
            record(source, "noted", "log", ada)
            run(source, f"CREATE ROLE reader; GRANT SELECT ON {read} TO reader; {grant} SET LOCAL ROLE reader")
            assert find_user(source, str(ada)).triggers == ()


NESTED, DOTTED = {"onboarding": {"requireEmailVerification": True}}, {"onboarding.requireEmailVerification": True}


@pytest.mark.parametrize(
    ("branch", "environment_config", "required"),
    [
        (None, None, False),
        (NESTED, None, True),
        (None, DOTTED, True),
        (DOTTED, {}, True),
        (NESTED, {"onboarding.requireEmailVerification": False}, False),
        (NESTED, {"onboarding.requireEmailVerification": None}, False),
        (DOTTED, {"onboarding": {}}, False),
        ({"onboarding": {"requireEmailVerification": "true"}}, {"auth": {}}, False),
        ({"onboarding": 3}, None, False),
    ],
)
def test_an_unverified_address_restricts_where_the_tenancy_requires_it(
    source: Connection, ada: uuid.UUID, branch: Any, environment_config: Any, required: bool
) -> None:
    for table, config in (("BranchConfigOverride", branch), ("EnvironmentConfigOverride", environment_config)):
        if config is not None:
            insert(source, table, {"projectId": "p", "branchId": "main", "updatedAt": "now", "config": config})
    nobody = add_user(source)
    unverified = add_user(source)
    add_channel(source, unverified, "u@example.com", isVerified=False)
    ghost = add_user(source, isAnonymous=True)
    expected = ["unverified-email"] if required else []
    for user, kinds in ((ada, []), (nobody, expected), (unverified, expected), (ghost, ["anonymous"])):
        assert [cause.kind for cause in find_user(source, str(user)).find_causes()] == kinds


# -- restricting


def test_restricting_changing_and_lifting(source: Connection, ada: uuid.UUID) -> None:
    before = one(source, 'SELECT "updatedAt" FROM "ProjectUser" WHERE "projectUserId" = %s', ada)
    steps: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda held: held.with_reason("spam", None), (True, "spam", None)),
        (lambda held: held.with_reason("spam", "case 7"), (True, "spam", "case 7")),
        (lambda held: held.with_reason("Spam; '--", None), (True, "Spam; '--", "case 7")),
        (lambda held: held.with_reason("spam", ""), (True, "spam", None)),
        (lambda held: Restriction(), (False, None, None)),
    ]
    for wanted, expected in steps:
        user = find_user(source, str(ada))
        users.change_restriction(source, user, wanted(user.restriction))
        assert row(source, ada) == expected
    assert one(source, 'SELECT "updatedAt" FROM "ProjectUser" WHERE "projectUserId" = %s', ada) > before


def test_what_changed_meanwhile_is_not_overwritten(source: Connection, ada: uuid.UUID) -> None:
    seen = find_user(source, str(ada))
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'Countess\'')
    users.change_restriction(source, seen, Restriction(True, "mine"))  # another column is no conflict
    with pytest.raises(StateError) as caught:
        users.change_restriction(source, seen, Restriction(True, "again"))
    assert (caught.value.code, row(source, ada)) == ("changed-meanwhile", (True, "mine", None))
    seen = find_user(source, str(ada))
    source.execute('DELETE FROM "ProjectUser"')
    with pytest.raises(StateError) as caught:
        users.change_restriction(source, seen, Restriction())
    assert caught.value.code == "changed-meanwhile"


def test_two_at_once_serialise_on_the_row_and_the_later_is_refused(
    source: Connection, ada: uuid.UUID, project: Project, connect: Connect, migrated_db: str
) -> None:
    application = connect(migrated_db)
    application.execute('UPDATE "ProjectUser" SET "restrictedByAdmin" = true, "restrictedByAdminReason" = \'theirs\'')
    command = project.start("users", "restrict", ada, "--reason", "mine", "--yes", "--json")
    wait_until_blocked(source)
    application.commit()
    stdout, stderr = command.communicate(timeout=30)
    assert command.returncode == 5, stderr
    assert '"changed-meanwhile"' in stdout
    assert row(source, ada) == (True, "theirs", None)


def test_a_row_that_is_held_is_waited_for_only_so_long(
    source: Connection, ada: uuid.UUID, connect: Connect, migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(users, "LOCK_TIMEOUT", "50ms")
    connect(migrated_db).execute('UPDATE "ProjectUser" SET "displayName" = \'in hand\'')
    seen = find_user(source, str(ada))
    with pytest.raises(StackctlError) as caught, translating_errors("the database"):
        users.change_restriction(source, seen, Restriction(True, "mine"))
    assert (caught.value.code, caught.value.exit_code) == ("lock-timeout", 5)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("ProjectUser_restricted_by_admin_consistency", "only while the user is restricted"),
        ("theirs", "stackctl does not know"),
    ],
)
def test_a_violated_constraint_is_explained(source: Connection, ada: uuid.UUID, constraint: str, words: str) -> None:
    # As an application's trigger may do that keeps the reason for its records.
    source.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.\"restrictedByAdminReason\" := ''kept''; RETURN NEW; END';"
        'CREATE TRIGGER keep BEFORE UPDATE ON "ProjectUser" FOR EACH ROW EXECUTE FUNCTION keep()'
    )
    if constraint == "theirs":
        source.execute(
            'ALTER TABLE "ProjectUser" DROP CONSTRAINT "ProjectUser_restricted_by_admin_consistency",'
            " ADD CONSTRAINT theirs CHECK (\"restrictedByAdminReason\" <> 'kept')"
        )
    seen = find_user(source, str(ada))
    with pytest.raises(StateError) as caught:
        users.change_restriction(source, replace(seen), Restriction(by_admin=constraint == "theirs"))
    assert (caught.value.code, caught.value.details) == ("constraint-violated", {"constraint": constraint})
    assert words in caught.value.message
    assert row(source, ada) == (False, None, None)


# -- into the sync


@pytest.fixture
def mapped(project: Project, external_db: str) -> Project:
    """The bundled mapping of users, and with it what the row says of a restriction."""
    document = yaml.safe_load((find_bundled("mappings") / "users.yaml").read_text(encoding="utf-8"))
    document["columns"] |= {
        "restricted_by_admin": "boolean",
        "restricted_by_admin_reason": "text null",
        "restricted_by_admin_private_details": "text null",
    }
    document["select"] = document["select"].replace(
        'u."isAnonymous" AS is_anonymous',
        'u."isAnonymous" AS is_anonymous, u."restrictedByAdmin" AS restricted_by_admin,'
        ' u."restrictedByAdminReason" AS restricted_by_admin_reason,'
        ' u."restrictedByAdminPrivateDetails" AS restricted_by_admin_private_details',
    )
    folder: Path = project.directory / "mappings"
    folder.mkdir()
    (folder / "users.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    project.settings["mappings_dir"] = "mappings"
    return project.postgres(MINE, external_db)


@pytest.mark.parametrize("capture", ["triggers", "application"])
def test_the_change_flows_into_the_sync(
    mapped: Project, source: Connection, ada: uuid.UUID, external_db: str, connect: Connect, capture: str
) -> None:
    if capture == "application":
        source.execute('ALTER TABLE "ProjectUser" DISABLE TRIGGER USER')
    pipeline = mapped.pipeline()
    settle(pipeline)
    stamped = find_user(source, str(ada)).sequence_id
    assert stamped is not None
    outside = connect(external_db, autocommit=True)
    restricted = (
        "SELECT restricted_by_admin, restricted_by_admin_reason, restricted_by_admin_private_details FROM users"
    )
    assert fetch(outside, restricted) == [(False, None, None)]
    for wanted in (Restriction(True, "spam", "case 7"), Restriction()):
        users.change_restriction(source, find_user(source, str(ada)), wanted)
        assert find_user(source, str(ada)).sequence_id is None  # it waits
        assert sequence(pipeline).by_table == {"ProjectUser": 1}
        settle(pipeline)
        assert fetch(outside, restricted) == [(wanted.by_admin, wanted.reason, wanted.private_details)]
    assert (find_user(source, str(ada)).sequence_id or 0) > stamped
