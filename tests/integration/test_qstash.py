"""`sync.dispatch: qstash`: nothing is lost or doubled, whatever the delivery service answers."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync.queue import claims, entries
from tests import qstash_fake
from tests.backend import (
    MINE,
    OTHER,
    Connection,
    Project,
    add_user,
    differences,
    failures,
    fetch,
    poll,
    populate,
    sequence,
)
from tests.serving import configure, serving

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator

    from tests.qstash_fake import Fake

NOWHERE = "http://127.0.0.1:9/sync-engine"


@pytest.fixture
def fake() -> Iterator[Fake]:
    with qstash_fake.running() as fake:
        fake.hold = True
        yield fake


def publishing(project: Project, fake: Fake, endpoint: str = NOWHERE, token: str = qstash_fake.TOKEN) -> Project:
    return configure(project, dispatch="qstash", endpoint=endpoint, qstash={"url": fake.url, "token": token})


def queue(source: Connection, *tenancies: uuid.UUID) -> None:
    entries.enqueue(source, tenancies)


def pending(source: Connection) -> int:
    return entries.summarize_queue(source).pending


def test_entries_are_published_as_one_batch_and_listed(project: Project, source: Connection, fake: Fake) -> None:
    publishing(project, fake)
    queue(source, MINE, OTHER)
    ids = {str(id_) for (id_,) in fetch(source, 'SELECT id FROM "OutgoingRequest"')}
    result = poll(project.pipeline())
    assert (result.claimed, result.delivered, result.failed, pending(source)) == (2, 2, 0, 0)
    assert fake.calls == [("POST", "/v2/batch")]
    assert {one.headers["upstash-deduplication-id"] for one in fake.accepted} == ids
    (first, _) = fake.accepted
    assert first.destination == NOWHERE
    assert {json.loads(one.body)["tenancyId"] for one in fake.accepted} == {str(MINE), str(OTHER)}
    assert first.headers["upstash-label"] == "stackctl-sync"
    assert first.headers["upstash-flow-control-key"] == "sentinel-sync-key"
    assert first.headers["upstash-flow-control-value"] == "parallelism=20"
    assert first.headers["upstash-timeout"] == "90s"
    assert {"upstash-retries", "upstash-retry-delay"} <= first.headers.keys()
    listed = json.loads(project.run("queue", "list", "--json").stdout)
    assert {one["message"] for one in listed["published"]} == {one.id for one in fake.accepted}
    assert "published" in project.run("queue", "list").stdout


def test_a_lost_answer_and_a_change_behind_it(project: Project, source: Connection, fake: Fake) -> None:
    """The service drops a second publication of the same entry, which by now stands for a later change as well."""
    publishing(project, fake)
    queue(source, MINE)
    fake.faults.append(("lost", {}))
    with pytest.raises(ServiceError) as raised:
        poll(project.pipeline())
    assert raised.value.code == "qstash-unreachable"
    assert (len(fake.accepted), pending(source), failures(project.pipeline())) == (1, 1, [])
    queue(source, MINE)  # falls in with the entry
    assert poll(project.pipeline()).failed == 0
    assert (len(fake.accepted), pending(source)) == (2, 0)
    assert len({one.headers["upstash-deduplication-id"] for one in fake.accepted}) == 2


def test_a_bad_entry_does_not_hold_up_the_others(project: Project, source: Connection, fake: Fake) -> None:
    publishing(project, fake)
    queue(source, MINE, OTHER)
    source.execute("""
        UPDATE "OutgoingRequest" SET "qstashOptions" = jsonb_set("qstashOptions", '{flowControl,key}', '"bad"')
        WHERE "qstashOptions" -> 'body' ->> 'tenancyId' = %s""", [str(OTHER)])  # fmt: skip
    answer = fake.publish
    fake.publish = lambda destination, headers, body: (
        (400, {"error": "invalid flow control key"})
        if {name.lower(): value for name, value in headers.items()}["upstash-flow-control-key"] == "bad"
        else answer(destination, headers, body)
    )
    result = poll(project.pipeline())
    assert (result.failed, result.dead, pending(source)) == (1, 1, 0)
    # The batch may have taken what stood before the bad one: to be on the safe side, that is published anew.
    assert {json.loads(one.body)["tenancyId"] for one in fake.accepted} == {str(MINE)}
    (failure,) = failures(project.pipeline())
    assert (failure.tenancy, failure.code, failure.dead) == (OTHER, "publish-refused", True)
    assert "invalid flow control key" in failure.error


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (401, {}, "qstash-refused"),
        (403, {}, "qstash-refused"),
        (404, {}, "qstash-failed"),
        (500, {}, "qstash-failed"),
        (429, {"RateLimit-Limit": "500", "RateLimit-Remaining": "0", "RateLimit-Reset": "4102444800"},
         "qstash-rate-limited"),
    ],
)  # fmt: skip
def test_what_is_no_fault_of_an_entry(
    project: Project, source: Connection, fake: Fake, status: int, headers: dict[str, str], code: str
) -> None:
    publishing(project, fake)
    queue(source, MINE, OTHER)
    fake.faults += [(status, headers)] * 3
    outcome = project.run("poll", "--json")
    assert outcome.code == 4
    assert json.loads(outcome.stdout)["error"]["code"] == code
    assert qstash_fake.TOKEN not in outcome.stdout + outcome.stderr
    assert (pending(source), failures(project.pipeline()), fake.accepted) == (2, [], [])


def test_the_limit_of_a_second_is_waited_for(project: Project, source: Connection, fake: Fake) -> None:
    publishing(project, fake)
    queue(source, MINE)
    fake.faults.append((429, {"Burst-RateLimit-Limit": "100", "Burst-RateLimit-Reset": str(int(time.time()) + 1)}))
    assert poll(project.pipeline()).delivered == 1
    assert len(fake.accepted) == 1


def test_a_killed_poller_publishes_again(project: Project, source: Connection, fake: Fake) -> None:
    """Between the service's answer and our commit: the entry comes back when its claim has expired."""
    publishing(project, fake)
    queue(source, MINE)
    fake.release()
    killed = project.run("poll", before="""
from stackctl.sync.queue import claims
import os
claims.record_published = lambda conn, published: os.kill(os.getpid(), 9)
""".strip().replace("\n", "; "))  # fmt: skip
    assert (killed.code, len(fake.accepted)) == (-9, 1)
    queue(source, MINE)
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" - interval \'1 hour\'')
    result = poll(project.pipeline())
    assert (result.failed, pending(source)) == (0, 0)
    assert len(fake.accepted) == 2


def test_to_a_server_and_back(project: Project, source: Connection, fake: Fake) -> None:
    """Published, delivered twice at once, synced, and known as done; keys change meanwhile."""
    project.sqlite(MINE)
    populate(source, MINE)
    project.sync_settings(signing_keys={"current": fake.keys["current"], "next": fake.keys["next"]})
    project.settings["serve"] = {"token": "a-token-of-the-tests-0123456789"}
    fake.doubles = True
    fake.release()
    with serving(project) as server:
        server.drain()
        project.sync_settings(
            dispatch="qstash", endpoint=server.sync_url, qstash={"url": fake.url, "token": qstash_fake.TOKEN}
        )
        pipeline = project.pipeline()
        sequence(pipeline)
        poll(pipeline)
        fake.wait_until_idle()
        assert differences(pipeline) == []
        assert claims.list_published(source, 10) == []
        fake.rotate()
        add_user(source)
        sequence(pipeline)
        poll(pipeline)
        fake.wait_until_idle()
        assert (differences(pipeline), fake.dead) == ([], {})


def test_what_the_service_gave_up(project: Project, source: Connection, fake: Fake) -> None:
    publishing(project, fake)
    queue(source, MINE, OTHER)
    poll(project.pipeline())
    fake.release()
    fake.wait_until_idle()
    assert all(one.retried == one.retries for one in fake.accepted)
    listed = json.loads(project.run("queue", "list", "--dead", "--json").stdout)
    assert {one["tenancy"] for one in listed["dead_messages"]} == {str(MINE), str(OTHER)}
    message = next(one["message"] for one in listed["dead_messages"] if one["tenancy"] == str(MINE))
    fake.hold = True
    dry = json.loads(project.run("queue", "retry", message, "--dry-run", "--json").stdout)
    assert (dry["queued"], len(fake.dead)) == ([{"tenancy": str(MINE), "message": message}], 2)
    assert project.run("queue", "retry", message).code == 0
    assert (len(fake.dead), pending(source)) == (1, 1)
    assert project.run("queue", "retry", "--all").code == 0
    assert (fake.dead, pending(source)) == ({}, 2)
    poll(project.pipeline())
    assert len(fake.accepted) == 4
    assert project.run("queue", "retry", "msg_unknown").code == 2


@pytest.mark.parametrize(
    ("qstash", "code"),
    [({"token": None}, "no-qstash-token"), ({"token": "two words"}, "invalid-value"),
     ({"token": "good", "url": "ftp://nowhere"}, "config-type")],
)  # fmt: skip
def test_settings_that_cannot_be_meant(project: Project, qstash: dict[str, str | None], code: str) -> None:
    configure(project, dispatch="qstash", endpoint=NOWHERE, qstash=qstash)
    outcome = project.run("poll", "--json")
    assert (outcome.code, json.loads(outcome.stdout)["error"]["code"]) == (3, code)


def test_a_list_of_dead_letters_that_is_odd_or_without_end(project: Project, source: Connection, fake: Fake) -> None:
    publishing(project, fake)
    fake.dead["1-0"] = {"dlqId": "1-0", "createdAt": 1e30, "label": "stackctl-sync", "body": "[]"}
    answer = fake.answer
    fake.answer = lambda method, path, headers, body: (
        (200, answer(method, path, headers, body)[1] | {"cursor": "0"}) if method == "GET"
        else answer(method, path, headers, body)
    )  # fmt: skip
    (found, *_) = json.loads(project.run("queue", "list", "--dead", "--json").stdout)["dead_messages"]
    assert (found["id"], found["created_at"], found["tenancy"]) == ("1-0", None, None)
    assert len(fake.calls) == 2


@pytest.mark.parametrize(
    ("keys", "token", "status", "said"),
    [("good", qstash_fake.TOKEN, "ok", "signs with the configured keys"),
     ("bad", qstash_fake.TOKEN, "error", "not the keys"), ("good", "other", "error", "invalid token")],
)  # fmt: skip
def test_doctor_asks_the_service(
    project: Project, source: Connection, fake: Fake, keys: str, token: str, status: str, said: str
) -> None:
    publishing(project, fake, token=token)
    current = fake.keys["current"] if keys == "good" else "a-key-of-another-account-0123456789"
    project.sync_settings(signing_keys={"current": current})
    checks = json.loads(project.run("doctor", "--json").stdout)["checks"]
    (check,) = (one for one in checks if one["name"] == "delivery service")
    assert (check["status"], said in check["message"]) == (status, True)
    assert current not in json.dumps(checks)


def test_the_stand_in_is_as_the_official_client_expects_it(fake: Fake) -> None:
    qstash = pytest.importorskip("qstash", reason="pip install qstash: the service's own client")
    client = qstash.QStash(qstash_fake.TOKEN, base_url=fake.url)
    one = client.message.publish_json(url=NOWHERE, body={"tenancyId": str(MINE)}, retries=0, deduplication_id="a",
                                      label="stackctl-sync")  # fmt: skip
    again = client.message.publish_json(url=NOWHERE, body={"tenancyId": str(MINE)}, deduplication_id="a")
    assert (again.message_id, again.deduplicated) == (one.message_id, True)
    told = client.message.batch(
        [{"url": NOWHERE, "body": "x", "retries": 0}, {"url": NOWHERE, "body": "y", "retries": 0}]
    )
    assert len({answer.message_id for answer in told}) == 2
    fake.release()
    fake.wait_until_idle()
    dead = client.dlq.list().messages
    assert {message.message_id for message in dead} == {one.message_id, *(answer.message_id for answer in told)}
    client.dlq.delete_many([message.dlq_id for message in dead])
    assert fake.dead == {}
    before = client.signing_key.get()
    assert client.signing_key.rotate().current == before.next
