"""A backend in which strangers have written whatever they could, and an operator's folder to run the commands in."""

from __future__ import annotations

import json
import subprocess
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from tests.attack.values import MARK, find_texts
from tests.backend import MINE, OTHER, insert, populate, settle
from tests.shop import ACCOUNT, PRODUCT, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from tests.conftest import Databases
    from tests.stripe_fake import Running

RULE, RAISING = "block-evil", 'CREATE TABLE "{0}" (x int); DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = {1}; END $$;'

# By which rows are found, or which only take certain words: they stay as they are.
KEPT = {
    "Tenancy": {"branchId"},
    "ProjectUser": {"mirroredBranchId", "mirroredProjectId", "restrictedByAdminReason",
                    "restrictedByAdminPrivateDetails"},
    "Team": {"mirroredBranchId", "mirroredProjectId"},
    "VerificationCode": {"branchId", "projectId", "data", "method"},
    "Project": {"stripeAccountId"},
    "OneTimePurchase": {"stripePaymentIntentId", "product"},
    "Subscription": {"product"},
    "SubscriptionInvoice": {"stripeInvoiceId", "status"},
    "EnvironmentConfigOverride": {"config", "branchId", "projectId"},
    "OutgoingRequest": {"qstashOptions"},
    "DeletedRow": {"tableName", "primaryKey"},
    "refused_row": {"key", "database_id", "mapping"},
    "migration_history": {"name", "checksum", "target_schema"},
    "delivery": {"database_id"},
    "backfill": {"mapping", "database_id"},
    "refund": {"payment_intent", "idempotency_key", "stripe_account", "params", "entries", "stripe_refund", "currency",
               "request_id", "waits_for"},
    "sign_up_rule_hour": {"action"},
    "sign_up_rule_total": {"action"},
    "sign_up_rule_user": {"action"},
    "ExternalDbSyncMetadata": {"id"},
}  # fmt: skip
# What the server refuses for each, whatever is written.
REFUSED = {
    ("Project", "id"), ("Project", "onboardingStatus"), ("ProjectUser", "projectId"), ("Tenancy", "projectId"),
    ("Subscription", "stripeSubscriptionId"), ("SubscriptionInvoice", "stripeSubscriptionId"),
    ("refund", "purchase_type"), ("refund", "status"),
}  # fmt: skip


@dataclass
class World:
    """`text`: what strangers have written. `values`: every text that the database holds."""

    shop: Shop
    text: str
    database: str
    databases: Databases
    ids: dict[str, str] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)

    @property
    def directory(self) -> Path:
        return self.shop.directory

    @contextmanager
    def fork(self) -> Iterator[str]:
        """The URL of a copy of the database for what changes it; Stripe forgets it, too."""
        with self.shop.stripe.state.restored(), self.databases.one("attack", template=self.database) as url:
            yield url


def build_world(directory: Path, databases: Databases, stripe: Running, text: str, template: str) -> World:
    """`template`: the database to begin with."""
    # The folder's own name is a stranger's too: what a branch is called, or a ticket.
    folder = directory / folder_name(text)
    folder.mkdir(parents=True)
    name = databases.create("attacked", template=template)
    shop = Shop(folder, databases.url(name), stripe)
    world = World(shop, text, name, databases)
    with shop.connect() as conn:
        _add_rows(world, conn)
        _fill_columns(world, conn)
    _write_files(world)
    return world


def folder_name(text: str) -> str:
    return text.partition(" postgresql")[0].replace("/", "_")[:80]


def _add_rows(world: World, conn: psycopg.Connection[Any]) -> None:
    shop, text, ids = world.shop, world.text, world.ids
    shop.sqlite(MINE, "copy.db", text).postgres(OTHER, f"postgresql://u:{MARK}pw@127.0.0.1:1/x", "unreachable")
    rows = populate(conn, MINE)
    populate(conn, OTHER)
    pipeline = shop.pipeline()
    del pipeline.databases[OTHER]
    settle(pipeline)
    product = PRODUCT | {"displayName": text, "includedItems": {text: {"quantity": 1}}}
    bought, unrefunded = shop.buy(product=product), shop.buy(product=product)
    ids |= {
        "mine": str(MINE), "user": str(rows.user), "bought": str(unrefunded), "text": text, "name": folder_name(text),
        "again": str(shop.buy(product=product)), "subscription": str(shop.subscribe(product=product)),
    }  # fmt: skip
    assert shop.refund(bought, "--amount=1", f"--note={'x' * 10}").code == 0
    ids["unsettled"] = str(shop.planned(conn, shop.buy(product=product)).id)
    sent = {"email_sent_to": text, "email_sent_at": 1}
    waits_for = {"reason": text, "instructions_email": text, "next_action": {"type": text, text: {"email_sent": sent}}}
    conn.execute("UPDATE stackctl.refund SET waits_for = %s", (Jsonb(waits_for),))
    ids["refund"] = str(shop.one("SELECT id FROM stackctl.refund WHERE status = 'succeeded'"))
    condition = f"email == {json.dumps(text, ensure_ascii=False)}"
    rule = {"enabled": True, "displayName": text, "priority": 1, "condition": condition,
            "action": {"type": "reject", "message": text}}  # fmt: skip
    config = {"auth.signUpRules": {"theirs": rule}, "payments.products": {text: product, "other": product}}
    conn.execute(
        'INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)'
        ' SELECT "projectId", "branchId", now(), %s FROM "Tenancy" WHERE id = %s',
        (Jsonb(config), MINE),
    )
    for tenancy, database in ((MINE, text), (OTHER, "unreachable")):
        conn.execute("INSERT INTO stackctl.delivery VALUES (%s, %s, 3, now(), now(), '', '', NULL)",
                     (tenancy, database))  # fmt: skip
    conn.execute(
        "INSERT INTO stackctl.refused_row (tenancy_id, database_id, mapping, key, sequence_id, error)"
        " VALUES (%s, %s, 'users', %s, 1, '')", (MINE, text, Jsonb([str(rows.user)]))
    )  # fmt: skip
    for who in (rows.user, None):
        conn.execute("SELECT stackctl.record_sign_up_rule_trigger(%s, %s, 'reject', %s)", (MINE, RULE, who))
    insert(conn, "OutgoingRequest",
           {"id": uuid.uuid4(), "deduplicationKey": text,
            "qstashOptions": {"url": text, "body": {"tenancyId": text}}})  # fmt: skip
    conn.execute('UPDATE "ProjectUser" SET "restrictedByAdmin" = true, "restrictedByAdminReason" = %s,'
                 ' "restrictedByAdminPrivateDetails" = %s', (text, text))  # fmt: skip


def _fill_columns(world: World, conn: psycopg.Connection[Any]) -> None:
    """Every text column of every row, and every text within JSON, becomes the stranger's."""
    found = conn.execute(
        "SELECT table_schema, table_name, column_name, data_type = 'jsonb' FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name) WHERE table_schema IN ('public', 'stackctl')"
        " AND table_type = 'BASE TABLE' AND data_type IN ('text', 'character varying', 'jsonb')"
    ).fetchall()
    refused: set[tuple[str, str]] = set()
    for schema, table, column, is_json in found:
        if column in KEPT.get(table, ()):
            continue
        value = "to_jsonb(%s || ctid::text)" if is_json else "%s || ctid::text"
        statement = sql.SQL("UPDATE {} SET {} = " + value).format(sql.Identifier(schema, table), sql.Identifier(column))
        try:
            with conn.transaction():
                conn.execute(statement, (world.text,))
        except (errors.IntegrityError, errors.ObjectNotInPrerequisiteState, errors.RaiseException):
            refused.add((table, column))
    assert refused <= REFUSED, refused - REFUSED
    for schema, table, column, _ in found:
        query = sql.SQL("SELECT DISTINCT {} FROM {}").format(sql.Identifier(column), sql.Identifier(schema, table))
        for (value,) in conn.execute(query):
            world.values.update(find_texts(value))


def _write_files(world: World) -> None:
    folder, text = world.directory, world.text
    literal = json.dumps(text, ensure_ascii=False)
    condition = f"email == {literal} || emailDomain == {literal}"
    reject = {"type": "reject", "message": text}
    rules = {
        RULE: {"display_name": text, "priority": 100, "condition": condition, "action": reject},
        text: {
            "display_name": text,
            "priority": 50,
            "condition": "riskScores.bot > 80",
            "action": {"type": "restrict"},
        },
    }
    test = {"name": text, "user": {"email": text, "auth_method": "otp"}, "expect": {"rule": text}}
    for path, content in {
        "sign-up-rules.yaml": {"default_action": "allow", "rules": rules},
        "evil.rules-test.yaml": {"rules": "./sign-up-rules.yaml", "tests": [test]},
        "bad-suite.yaml": {"rules": text, "tests": [{text: text, "expect": {"decision": text}}]},
        "bad-rules.yaml": {text: text, "rules": {text: {"condition": f"{literal} + 1", "action": {"type": text}}}},
        "maps/evil.yaml": {"name": text, text: text, "columns": {text: text}},
        "methods.yaml": {text: True, "card": text},
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    (folder / "users.jsonl").write_text(json.dumps({"email": text, "auth_method": "otp"}) + "\n")
    migrations = folder / "evil"
    migrations.mkdir()
    (migrations / "20300101000000_evil.sql").write_text(RAISING.format(_name(text), _quote(text)), encoding="utf-8")
    # A file that the folder's repository does not have yet.
    for arguments in (["init", "-q", "-b", "main"], ["commit", "-q", "--allow-empty", "-m", "base"]):
        identity = ("-c", "user.name=n", "-c", "user.email=n@example.com")
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)


def _name(text: str) -> str:
    return text.replace('"', "").replace("\0", "")[:40]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def add_stripe(stripe: Running, text: str) -> None:
    """What Stripe answers."""
    stripe.state.add(
        "account", id=ACCOUNT, details_submitted=False, charges_enabled=True,
        requirements={"currently_due": [text]}, business_profile={"name": text},
    )  # fmt: skip
    shown = {"available": True, "display_preference": {"overridable": True, "preference": "on", "value": "on"}}
    stripe.state.add("payment_method_configuration", ACCOUNT, id="pmc_1", parent="pmc_0", is_default=False, name=text,
                     livemode=False, card=shown, **{text: shown})  # fmt: skip
