"""The faults: what the driver does to processes, connections, servers, queue and fuses, one step at a time."""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.types.json import Jsonb

from stackctl.sync.queue import fuses, pauses

from .checks import TAGGED
from .damage import damage, empty
from .world import TENANCIES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .checks import Watcher
    from .processes import Processes
    from .world import Connection, Side, World

FOREIGN = "/api/latest/emails/render"  # a queue entry of another kind: not ours to touch
A_LEASE_AGO = "interval '2 minutes'"


class Faults:
    """Each method is one fault; `counts` says how often it struck something."""

    def __init__(
        self, world: World, processes: Processes, watcher: Watcher, rng: random.Random, longest: float
    ) -> None:
        self._world, self._processes, self._watcher, self._rng = world, processes, watcher, rng
        self._longest = longest  # seconds that a disturbance lasts at most
        self.counts: Counter[str] = Counter()
        self.foreign: set[uuid.UUID] = set()

    def step(self) -> None:
        """One fault, picked at random."""
        chosen: Callable[[], None] = self._rng.choices(list(self.kinds), list(self.kinds.values()))[0]
        with suppress(psycopg.OperationalError):
            chosen()

    @property
    def kinds(self) -> dict[Callable[[], None], float]:
        return {
            self.kill: 3, self.terminate: 2, self.freeze: 1.5, self.cut: 2, self.refuse: 1, self.swallow: 1,
            self.delay: 1, self.terminate_source: 2, self.terminate_target: 3, self.terminate_application: 0.5,
            self.crash_target: 0.8, self.crash_source: 0.3, self.flip_fuse: 2, self.flip_pause: 3,
            self.duplicate_entries: 1.5,
            self.change_mapping: 2, self.damage: 3, self.empty_copy: 2, self.strange_entries: 1, self.claim_and_die: 1,
            self.let_leases_expire: 1.5,
        }  # fmt: skip

    # -- processes

    def kill(self) -> None:
        if self._processes.running:
            self._processes.kill(self._processes.victim())

    def terminate(self) -> None:
        if self._processes.running:
            self._processes.victim().popen.send_signal(signal.SIGTERM)
            self.counts["SIGTERM"] += 1

    def freeze(self) -> None:
        """A process stops, its leases expire, others take its work; then it goes on as if nothing was."""
        if self._processes.running:
            process = self._processes.victim()
            self._processes.freeze(process)
            self.let_leases_expire()
            self._last(self._longest)
            self._processes.thaw(process)
            self.counts["frozen processes"] += 1

    # -- connections

    def _side(self) -> Side:
        return self._rng.choice(["source", "target"])

    def _last(self, longest: float) -> None:
        time.sleep(self._rng.random() * longest)

    def cut(self) -> None:
        self.counts["connections cut"] += self._world.proxies[self._side()].cut()

    def refuse(self) -> None:
        proxy = self._world.proxies[self._side()]
        proxy.refuse()
        self.counts["connections cut"] += proxy.cut()
        self._last(self._longest)
        proxy.heal()
        self.counts["times away"] += 1

    def swallow(self) -> None:
        """Silence, and then either all of it arrives late or the connections are gone."""
        proxy = self._world.proxies[self._side()]
        proxy.swallow()
        self._last(self._longest)
        if self._rng.random() < 0.5:
            self.counts["connections cut"] += proxy.cut()
        proxy.heal()
        self.counts["silences"] += 1

    def delay(self) -> None:
        proxy = self._world.proxies[self._side()]
        proxy.delay(self._rng.random() * 0.03)
        self._last(self._longest)
        proxy.heal()
        self.counts["slow lines"] += 1

    def terminate_source(self) -> None:
        self._terminate("source", "stackctl%", "backends terminated, source")

    def terminate_target(self) -> None:
        self._terminate("target", "stackctl%", "backends terminated, target")

    def terminate_application(self) -> None:
        self._terminate("source", "application", "backends terminated, application")

    def _terminate(self, side: Side, name: str, what: str) -> None:
        with self._world.connect(side, "postgres") as conn:
            ended = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
                " ORDER BY (state = 'active') DESC, random() LIMIT %s)",
                (name, self._rng.choice([1, 1, 3])),
            )
            self.counts[what] += ended.rowcount

    # -- servers

    def crash_target(self) -> None:
        self._world.crash("target", self._rng.choice([signal.SIGQUIT, signal.SIGQUIT, signal.SIGINT]))
        self.counts["restarts of the target server"] += 1

    def crash_source(self) -> None:
        self._world.crash("source")
        self.counts["restarts of the source server"] += 1

    # -- copies

    def change_mapping(self) -> None:
        """A mapping file is edited while processes run that have read it."""
        self._world.change_mapping(self._rng)
        self.counts["mapping changes"] += 1

    def damage(self) -> None:
        """Rows of a copy are changed, deleted and added by hand; only `verify --repair` repairs that."""
        for _ in range(self._rng.choice([1, 5])):
            if (what := damage(self._world, self._rng)) is not None:
                self.counts[what] += 1

    def empty_copy(self) -> None:
        """A copy without rows and cursors, as of a database that was made anew: it is loaded again, in pages."""
        tenancy = self._rng.choice([t for t in TENANCIES if t.copies])
        kind = self._rng.choice(tenancy.copies)
        with self._watcher.forgetting(tenancy, kind):
            emptied = empty(self._world, tenancy, kind)
        self.counts[f"copies emptied, {kind}"] += emptied

    # -- queue and fuses

    def flip_fuse(self) -> None:
        name: fuses.FuseName = self._rng.choice(["sequencer", "poller"])
        with self._world.connect("source") as conn:
            fuses.switch_fuse(conn, name, on=self._rng.random() < 0.6)
        self.counts["fuses flipped"] += 1

    def flip_pause(self) -> None:
        """A tenancy, a database, a mapping or where they meet is paused; or one that was is switched on again."""
        with self._world.connect("source") as conn:
            if (standing := pauses.list_pauses(conn)) and self._rng.random() < 0.5:
                self._end_pause(conn, self._rng.choice(standing))
            else:
                tenancy = self._rng.choice([None, *(t.id for t in TENANCIES)])
                database = self._rng.choice([None, "postgres", "sqlite", "duckdb"])
                mapping = self._rng.choice([None, *sorted(TAGGED)])
                if (tenancy, database, mapping) != (None, None, None):
                    pauses.add(conn, tenancy, database, mapping, reason=None, by="chaos")
        self.counts["pauses flipped"] += 1

    def _end_pause(self, conn: Connection, one: pauses.Pause) -> None:
        held = [(t.id, kind) for t in TENANCIES for kind in t.copies if one.covers(t.id, kind, one.mapping)]
        pauses.remove(conn, one.tenancy, one.database, one.mapping, held)

    def duplicate_entries(self) -> None:
        """Entries of keys that have one already, claimed by nobody who lives; some of the claims have expired."""
        self._queue(
            'INSERT INTO "OutgoingRequest"'
            ' (id, "qstashOptions", "deduplicationKey", "createdAt", "startedFulfillingAt") SELECT'
            ' gen_random_uuid(), "qstashOptions", "deduplicationKey", "createdAt",'
            " now() AT TIME ZONE 'UTC' - random() * interval '1 hour' FROM \"OutgoingRequest\""
            ' WHERE "deduplicationKey" IS NOT NULL LIMIT 3'
        )

    def claim_and_die(self) -> None:
        self._queue(
            'UPDATE "OutgoingRequest" SET "startedFulfillingAt" = now() AT TIME ZONE \'UTC\' WHERE id IN ('
            'SELECT id FROM "OutgoingRequest" WHERE "startedFulfillingAt" IS NULL AND "deduplicationKey" IS NOT NULL'
            " LIMIT 1 FOR UPDATE SKIP LOCKED)"
        )

    def strange_entries(self) -> None:
        """Of another kind, of an unknown tenancy, of none, without a key: as a backend may have left them."""
        ours = {"url": "/api/latest/internal/external-db-sync/sync-engine"}
        known, unknown = str(self._rng.choice(TENANCIES).id), str(uuid.UUID(int=0xFFFF))
        bodies = [{"tenancyId": known}, {"tenancyId": unknown}, {"tenancyId": "nonsense"}, {"tenancyId": 7}, {}, None]
        foreign = uuid.UUID(int=self._rng.getrandbits(128))
        with self._world.connect("source") as conn:
            add = 'INSERT INTO "OutgoingRequest" (id, "qstashOptions") VALUES (%s, %s)'
            conn.execute(
                add, (uuid.UUID(int=self._rng.getrandbits(128)), Jsonb(ours | {"body": self._rng.choice(bodies)}))
            )
            conn.execute(add, (foreign, Jsonb({"url": FOREIGN, "body": {"tenancyId": known}})))
        self.foreign.add(foreign)
        self.counts["queue entries written"] += 2

    def let_leases_expire(self) -> None:
        """As if minutes passed, for claims, retries and the sweep."""
        with self._world.connect("source") as conn:
            conn.execute(
                f'UPDATE "OutgoingRequest" SET "startedFulfillingAt" = "startedFulfillingAt" - {A_LEASE_AGO}'.encode()
            )
            conn.execute(f"UPDATE stackctl.pending_delivery SET leased_at = leased_at - {A_LEASE_AGO}".encode())
            conn.execute(f"UPDATE stackctl.delivery SET next_attempt_at = next_attempt_at - {A_LEASE_AGO}".encode())
            conn.execute("UPDATE stackctl.sweep SET last_swept_at = last_swept_at - interval '11 minutes'")
        self.counts["leases expired"] += 1

    def _queue(self, statement: str) -> None:
        with self._world.connect("source") as conn:
            self.counts["queue entries written"] += conn.execute(statement.encode()).rowcount

    # -- the end

    def heal(self) -> None:
        """Connections as they should be, fuses on, nothing paused, and the leases of the dead expired."""
        for proxy in self._world.proxies.values():
            proxy.heal()
        with self._world.connect("source") as conn:
            fuses.switch_fuse(conn, "sequencer", on=True)
            fuses.switch_fuse(conn, "poller", on=True)
            for one in pauses.list_pauses(conn):
                self._end_pause(conn, one)
        self.let_leases_expire()

    def touched_foreign(self) -> int:
        """How many of the foreign entries are not as they were written."""
        with self._world.connect("source") as conn:
            left = conn.execute(
                'SELECT id FROM "OutgoingRequest" WHERE "qstashOptions" ->> \'url\' = %s', (FOREIGN,)
            ).fetchall()
        return len(self.foreign ^ {id for (id,) in left})
