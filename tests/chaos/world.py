"""What a run plays in: two servers with proxies in front of them, tenancies with copies, a stackctl.yaml."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import yaml

from stackctl.config.settings import Flags, Settings
from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.postgres import embedded
from stackctl.sync.pipeline import Pipeline

from .proxy import Proxy

try:
    import duckdb
except ImportError:
    duckdb = None

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

Connection = psycopg.Connection[Any]
WITHOUT_DUCKDB = "no copy in DuckDB: the extra stackctl[duckdb] is not installed" if duckdb is None else None
DUCKDB_IS_BUSY: tuple[type[Exception], ...] = () if duckdb is None else (duckdb.Error,)
Side = Literal["source", "target"]

# A crash of a server must not take back what was committed; a crash of the machine is not played.
_OPTIONS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_connections": "200"}


@dataclass(frozen=True)
class Tenancy:
    """`number` is in the tag that every row of it carries. `copies`: the ids of its external databases, by type."""

    number: int
    branch: str
    organization: uuid.UUID | None
    copies: tuple[str, ...]

    @property
    def id(self) -> uuid.UUID:
        return uuid.UUID(int=0xA0 + self.number)

    @property
    def tag(self) -> str:
        return f"t{self.number}:"

    def tagged_id(self, number: int) -> uuid.UUID:
        """An id that shows whose it is."""
        return uuid.UUID(int=(self.number + 1) << 96 | number)


# The third shares project and branch, and so invitations, with the first. The last one has no copy: what moves there
# must vanish from the others.
TENANCIES = (
    Tenancy(0, "main", None, ("postgres", "sqlite")),
    Tenancy(1, "other", None, ("postgres",) if duckdb is None else ("postgres", "duckdb")),
    Tenancy(2, "main", uuid.UUID(int=7), ("postgres", "sqlite")),
    Tenancy(3, "nowhere", None, ()),
)


class World:
    """One run's servers and files. Made by `world`."""

    def __init__(self, directory: Path, resources: ExitStack) -> None:
        self.directory = directory
        self._servers: dict[Side, embedded.EmbeddedServer] = {}
        self.proxies: dict[Side, Proxy] = {}
        for side in ("source", "target"):
            server = embedded.attach(directory / side, options=_OPTIONS)
            resources.callback(server.release)
            self._servers[side] = server
            self.proxies[side] = resources.enter_context(Proxy(server.url()))
        self._servers["source"].ensure_database("backend")
        for tenancy in TENANCIES:
            self._servers["target"].ensure_database(f"copy_{tenancy.number}")

    def url(self, side: Side, dbname: str = "postgres", *, proxied: bool = False) -> str:
        url = self._servers[side].url(dbname)
        return self.proxies[side].url(url) if proxied else url

    def connect(
        self, side: Side, dbname: str = "backend", *, name: str = "chaos", autocommit: bool = True
    ) -> Connection:
        """A connection past the proxy."""
        return psycopg.connect(
            self.url(side, dbname), autocommit=autocommit, application_name=name, options="-c lock_timeout=5s"
        )

    def path(self, tenancy: Tenancy, kind: str) -> Path:
        """Of a copy that is a file."""
        return self.directory / f"copy_{tenancy.number}.{kind}"

    def crash(self, side: Side, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server without asking anybody, and start it again; SIGQUIT leaves it a crash recovery."""
        data = self.directory / side / "data"
        os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), how)
        # Waits until the old one is gone.
        embedded.attach(self.directory / side, options=_OPTIONS)

    def populate(self) -> None:
        """The backend's tables and the tenancies; no other row."""
        with self.connect("source") as conn:
            apply_migrations(conn, discover(find_bundled("migrations")))
            conn.execute(
                'INSERT INTO "Project" (id, "updatedAt", "displayName", "isProductionMode")'
                " VALUES ('p', now(), 'P', false)"
            )
            for t in TENANCIES:
                conn.execute(
                    'INSERT INTO "Tenancy" (id, "updatedAt", "projectId", "branchId", "hasNoOrganization",'
                    " \"organizationId\") VALUES (%s, now(), 'p', %s, %s, %s)",
                    (t.id, t.branch, None if t.organization else "TRUE", t.organization),
                )
            # The backend makes ids that are unique in the tenancy; the copies rest on that, not on the user.
            conn.execute('CREATE UNIQUE INDEX ON "ContactChannel" ("tenancyId", id)')

    def configure(self, rng: random.Random) -> None:
        """stackctl.yaml, everything by way of the proxies; small batches, so that there are many."""
        tenancies: dict[str, Any] = {}
        for tenancy in TENANCIES:
            copies: dict[str, Any] = {}
            for kind in tenancy.copies:
                if kind == "postgres":
                    place = {"url": self.url("target", f"copy_{tenancy.number}", proxied=True)}
                else:
                    place = {"path": self.path(tenancy, kind).name}
                copies[kind] = {"type": kind} | place
            if copies:
                tenancies[str(tenancy.id)] = {"external_databases": copies}
        shutil.copytree(find_bundled("mappings"), self.directory / "mappings")
        settings = {
            "version": 1,
            "mappings_dir": "mappings",
            "database": {"url": self.url("source", "backend", proxied=True)},
            "sync": {
                "batch_size": rng.choice([3, 7, 40, 1000]),
                "stamp_batch_size": rng.choice([5, 11, 60, 1000]),
                "workers": rng.choice([1, 3, 4]),
                "sequencer_interval": "5ms",
                "poller_interval": "5ms",
            },
            "tenancies": tenancies,
        }
        (self.directory / "stackctl.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def change_mapping(self, rng: random.Random) -> None:
        """Another version of the teams' mapping; whoever has read the one before goes on with that."""
        path = self.directory / "mappings" / "teams.yaml"
        text = (find_bundled("mappings") / "teams.yaml").read_text(encoding="utf-8")
        note = rng.choice(["NULL::text", "t.\"displayName\" || '!'", 't."teamId"::text'])
        text = text.replace("\nselect:", "\n  note: text null\nselect:").replace(
            '\n  FROM "Team"', f',\n    {note} AS note\n  FROM "Team"'
        )
        if rng.random() < 0.5:
            text += '    AND right(t."teamId"::text, 1) < \'' + f"{rng.randrange(16):x}'\n"
        fresh = path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.rename(path)

    def pipeline(self) -> Pipeline:
        return Pipeline(Settings(Flags(config=self.directory / "stackctl.yaml"), environ={}, cwd=self.directory))


def connect_duckdb(path: Path, *, read_only: bool) -> Any:
    """Raises one of DUCKDB_IS_BUSY while another has the file, or there is none."""
    assert duckdb is not None
    if not path.exists():
        raise duckdb.IOException(f"{path} does not exist")
    return duckdb.connect(str(path), read_only=read_only)


@contextmanager
def world(rng: random.Random) -> Iterator[World]:
    """A fresh one, ready to run; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        with ExitStack() as resources:
            made = World(directory, resources)
            made.populate()
            made.configure(rng)
            yield made
    finally:
        with suppress(OSError):
            shutil.rmtree(directory)
