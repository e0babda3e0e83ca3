"""Stamping, as without a configured size of batches, against one plain UPDATE of the same rows and indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from bench.scene import STAMP_BATCH, at_least, interleaved, run, seconds, stamp
from stackctl.sync.changes.sequencer import Sequencer, SequenceResult
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bench.scene import Connection, Figure, Scene

NAMES = ("stamping", "stamping-parents", "stamping-live")
ROUNDS = 3
LIVE_PART = 4  # with the live backend's indexes a row takes several times as long: so much fewer rows
_MARK = 'UPDATE "{}" SET "shouldUpdateSequenceId" = true'
_PLAIN = (
    'UPDATE "{}" SET "sequenceId" = nextval(\'global_seq_id\'), "shouldUpdateSequenceId" = false '
    'WHERE "shouldUpdateSequenceId"'
)
# What a live backend's "ProjectUser" has besides ours: marks for all rows, a unique stamp, and orders to list users in.
_LIVE_INDEXES: tuple[LiteralString, ...] = (
    'CREATE UNIQUE INDEX ON "ProjectUser" ("sequenceId")',
    'CREATE INDEX ON "ProjectUser" ("shouldUpdateSequenceId", "tenancyId")',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "displayName")',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "displayName" DESC)',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "createdAt")',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "createdAt" DESC)',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "lastActiveAt")',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "signedUpAt")',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "isAnonymous")',
    'CREATE INDEX ON "ProjectUser" ("tenancyId", "signUpEmailNormalized")',
)
_PARTIAL_MARK = """
SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = '"ProjectUser"'::regclass AND pg_get_expr(i.indpred, i.indrelid) = '"shouldUpdateSequenceId"'
"""


def figures(scene: Scene, wanted: Collection[str]) -> Iterator[Figure]:
    """The rows of the table that `wanted` names, of NAMES."""
    if "stamping" in wanted:
        yield _figure(
            scene,
            scene.rows,
            "stamping",
            "stamping all users against one plain UPDATE",
            tables=("ProjectUser",),
            goal=0.9,
        )
    if "stamping-parents" in wanted:
        both = ("ContactChannel", "ProjectUser")
        yield _figure(
            scene, scene.rows // 2, "stamping-parents", "the same, users and their channels", tables=both, goal=0.9
        )
    if "stamping-live" in wanted:
        users = scene.rows // LIVE_PART
        yield _figure(
            scene, users, "stamping-live", "the same, users with 13 indexes", tables=("ProjectUser",), goal=0.9
        )


def _figure(scene: Scene, users: int, name: str, what: str, *, tables: tuple[str, ...], goal: float) -> Figure:
    source = scene.backend(users, "stamping")
    pipeline = scene.pipeline({}, "stamping")
    stamp(pipeline, users)
    if name == "stamping-live":
        run(source, f'DROP INDEX "{run(source, _PARTIAL_MARK)}"')
        for statement in _LIVE_INDEXES:
            source.execute(statement)

    def plain() -> float:
        _mark(source, tables)
        return sum(seconds(lambda table=table: run(source, _PLAIN.format(table))) for table in tables)

    # Made once, as in a service: what it reads at its start is not stamping.
    stamper = scene.connect("stamping")
    sequencer = Sequencer(stamper, list(pipeline.mappings.values()), batch_size=STAMP_BATCH, grows=True)

    done = SequenceResult()

    def ours() -> float:
        _mark(source, tables)
        return seconds(lambda: sequencer.drain(done, Stop(), lambda rows: None))

    times = interleaved(ROUNDS, plain=plain, ours=ours)
    rows = users * len(tables)
    measured = (
        f"{rows / times['ours']:,.0f} rows/s in batches of {done.rows // done.batches:,};"
        f" UPDATE {rows / times['plain']:,.0f} rows/s"
    )
    stamper.close()
    source.close()
    return at_least(name, what, measured, ratio=times["plain"] / times["ours"], goal=goal)


def _mark(source: Connection, tables: Collection[str]) -> None:
    for table in tables:
        run(source, _MARK.format(table))
    source.execute("VACUUM")
    source.execute("CHECKPOINT")
