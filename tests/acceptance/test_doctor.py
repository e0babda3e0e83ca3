"""stackctl doctor: a finding for each thing that is wrong, and its fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import stripe as stripe_sdk

from tests.backend import MINE, Outcome, Project, add_user, settle
from tests.shop import ACCOUNT
from tests.stripe_fake.server import PLATFORM

if TYPE_CHECKING:
    import uuid
    from pathlib import Path

    import psycopg

    from tests.shop import Shop
    from tests.stripe_fake import Running


def wrong(outcome: Outcome) -> dict[str, tuple[str, str]]:
    assert outcome.json["ok"] is (outcome.code == 0)
    found = [check for check in outcome.json["checks"] if check["status"] != "ok"]
    assert all(check["hint"] for check in found)
    return {check["name"]: (check["message"], check["hint"]) for check in found}


@pytest.mark.quick
def test_a_healthy_project(project: Project, external_db: str, source: psycopg.Connection[Any]) -> None:
    project.postgres(MINE, external_db).sqlite(MINE)
    add_user(source)
    settle(project.pipeline())
    outcome = project.run("doctor", "--json")
    assert (outcome.code, wrong(outcome)) == (0, {})
    assert f"{MINE}/analytics" in {check["name"] for check in outcome.json["checks"]}
    assert project.run("doctor").stdout.endswith("\nall well\n")
    assert project.run("fuse", "off", "--mapping", "users").code == 0
    warned = project.run("doctor")
    assert (warned.code, warned.stdout.splitlines()[-1]) == (0, "nothing is wrong, 1 warning")


def test_a_database_that_was_never_migrated_is_one_finding(tmp_path: Path, empty_db: str) -> None:
    outcome = Project(tmp_path, empty_db).run("doctor", "--json")
    assert outcome.code == 1
    assert set(wrong(outcome)) == {"migrations", "external databases"}


@pytest.mark.parametrize(
    ("statement", "check", "says"),
    [
        ("ALTER SEQUENCE global_seq_id CACHE 20", "sequence", "CACHE 1"),
        (
            """INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "sequenceId", "primaryKey")
            VALUES (gen_random_uuid(), '00000000-0000-0000-0000-00000000000a', 'Team', 9000001, '{}')""",
            "sequence",
            "SELECT setval('global_seq_id', 9000001)",
        ),
        (
            'INSERT INTO "ExternalDbSyncMetadata" ("pollerEnabled", "updatedAt") VALUES (false, now())',
            "fuses",
            "stackctl fuse on poller",
        ),
        ('ALTER TABLE "Team" DROP COLUMN "displayName" CASCADE', "mappings", "stackctl migrate up"),
        ("DELETE FROM stackctl.migration_history WHERE name LIKE '%queue'", "migrations", "stackctl migrate up"),
    ],
)
def test_what_is_wrong_in_the_database_is_found(
    project: Project, source: psycopg.Connection[Any], statement: Any, check: str, says: str
) -> None:
    source.execute(statement)
    found = wrong(project.run("doctor", "--json"))
    assert says in found[check][1]


@pytest.mark.parametrize(
    "statement",
    [
        'DROP TRIGGER log_deleted_row ON "Team"',
        "DROP FUNCTION reset_sequence_id_on_update() CASCADE",
        "DROP FUNCTION reset_sequence_id_on_update() CASCADE; DROP FUNCTION stackctl.wake_listeners() CASCADE",
        'ALTER TABLE "Team" DISABLE TRIGGER reset_sequence_id_on_update',
        'ALTER TABLE "Team" DISABLE TRIGGER USER; DROP TRIGGER log_deleted_row ON "ProjectUser"',
    ],
)
def test_triggers_that_are_gone_come_back_by_the_hint(
    project: Project, source: psycopg.Connection[Any], statement: Any
) -> None:
    triggers = "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"
    before = source.execute(triggers).fetchall()
    source.execute(statement)
    for _ in range(2):  # what was switched off is the first thing it says
        found = wrong(project.run("doctor", "--json"))
        if "capture" not in found:
            break
        for step in found["capture"][1].split("; "):
            if command := re.search(r"run `stackctl (.*)`", step):
                yes = ["--yes"] if "repair" in step else []
                assert project.run(*command[1].split(), *yes).code == 0
            elif not step.startswith("and "):
                source.execute(step.encode())
    assert "capture" not in wrong(project.run("doctor", "--json"))
    assert source.execute(triggers).fetchall() == before


def test_a_tenancy_that_does_not_exist(project: Project, external_db: str) -> None:
    stranger: uuid.UUID = type(MINE)(int=0xDEAD)
    project.postgres(stranger, external_db)
    assert str(stranger) in wrong(project.run("doctor", "--json"))["tenancies"][0]


def test_an_external_database_that_can_not_be_reached(project: Project) -> None:
    project.postgres(MINE, "postgresql://nobody:hunter2@127.0.0.1:1/x")
    outcome = project.run("doctor", "--json")
    assert outcome.code == 1
    assert "can't be reached" in wrong(outcome)[f"{MINE}/analytics"][0]
    assert "hunter2" not in outcome.stdout + outcome.stderr


def test_a_broken_file_is_a_finding_too(project: Project) -> None:
    project.settings["databse"] = {"url": "x"}
    message, hint = wrong(project.run("doctor", "--json"))["configuration"]
    assert "databse" in message
    assert "database" in hint


# -- Stripe


def stripe_checks(shop: Shop, *arguments: str) -> dict[str, tuple[str, str]]:
    found = shop.run("doctor", "--json", *arguments).json["checks"]
    return {each["name"]: (each["status"], each["message"]) for each in found if each["name"].startswith("stripe")}


def test_stripe_is_looked_at(shop: Shop, stripe: Running) -> None:
    ready: dict[str, Any] = {"details_submitted": True, "charges_enabled": True, "requirements": {}}
    stripe.state.add("account", id=ACCOUNT, **ready)
    found = stripe_checks(shop)
    good = f"the test key of {PLATFORM} is good; API version {stripe_sdk.api_version} is asked for"
    assert found["stripe"] == ("ok", good), "a new SDK has other fields: read them, then change the gateway's version"
    assert found[f"stripe {ACCOUNT}"] == ("ok", "reachable, may take charges")

    stripe.fake.own_version = "2024-06-20"
    assert stripe_checks(shop)["stripe"][1] == good + "; the account's own is 2024-06-20, in which its events come"

    ready["requirements"] = {"currently_due": ["external_account"]}
    stripe.state.add("account", id=ACCOUNT, **ready)
    assert stripe_checks(shop)[f"stripe {ACCOUNT}"] == ("warning", "Stripe waits for external_account")
    shop.one('UPDATE "Project" SET "stripeAccountId" = %s RETURNING id', "acct_gone")
    assert stripe_checks(shop)["stripe acct_gone"][0] == "error"


def test_a_key_that_stripe_does_not_take_or_that_is_not_there(shop: Shop) -> None:
    shop.settings["payments"]["stripe_api_key"] = "sk_test_wrong"
    found = stripe_checks(shop)
    assert list(found) == ["stripe"]
    assert found["stripe"][0] == "error"
    assert "sk_test_wrong" not in found["stripe"][1]
    del shop.settings["payments"]["stripe_api_key"]
    assert stripe_checks(shop) == {"stripe": ("warning", "projects are connected to Stripe, and no key is set")}
    shop.one('UPDATE "Project" SET "stripeAccountId" = NULL RETURNING id')
    assert stripe_checks(shop) == {}


def test_a_key_of_the_other_mode_is_a_warning(shop: Shop, stripe: Running) -> None:
    stripe.state.add("account", id=ACCOUNT, details_submitted=True, charges_enabled=True, requirements={})
    shop.settings["payments"]["stripe_api_key"] = "sk_live_fake"
    status, message = stripe_checks(shop)[f"stripe {ACCOUNT}"]
    assert status == "warning"
    assert str(MINE) in message
