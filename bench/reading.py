"""Reading large tables: a page deep in the table against the first one, and verify against one checksum of it all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, LiteralString, cast

from bench.scene import SYNC_BATCH, TENANCY, at_most, interleaved, run, seconds, stamp, sync
from stackctl.mapping.compile import compile_mapping
from stackctl.sync import service
from stackctl.sync.check.verify import verify
from stackctl.sync.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bench.scene import Figure, Scene

NAMES = ("cursor", "verify")
DEEP, EQUAL = 25, 5  # times --rows
ROUNDS = 5
VERIFY_ROUNDS = 3

# Stamped as they come: what fills the table is not what is measured.
_STAMPED_USERS = """
INSERT INTO "ProjectUser" ("projectUserId", "tenancyId", "mirroredProjectId", "mirroredBranchId", "updatedAt",
    "displayName", "sequenceId", "shouldUpdateSequenceId")
SELECT gen_random_uuid(), %s, 'p', 'main', now(), 'User ' || n, n, false FROM generate_series(1, %s::int) AS n
"""


def figures(scene: Scene, wanted: Collection[str]) -> Iterator[Figure]:
    """The rows of the table that `wanted` names, of NAMES."""
    if "cursor" in wanted:
        yield _cursor(scene)
    if "verify" in wanted:
        yield _verify(scene)


def _cursor(scene: Scene) -> Figure:
    rows = DEEP * scene.rows
    source = scene.backend(0, "deep")
    indexes = (
        "SELECT string_agg(indexdef, ';') FROM pg_indexes WHERE tablename = 'ProjectUser' AND indexname LIKE '%_idx%'"
    )
    again = run(source, indexes)
    names = run(source, indexes.replace("indexdef, ';'", "format('%I', indexname), ','"))
    run(source, f"DROP INDEX {names}")
    run(source, _STAMPED_USERS, TENANCY, rows)
    run(source, again)
    source.execute("VACUUM ANALYZE")
    fetch = compile_mapping(scene.pipeline({}).find_mapping("users"), "postgres").fetch
    copy = cast("LiteralString", f"COPY ({fetch}) TO STDOUT (FORMAT binary)")

    def page(cursor: int) -> float:
        def read() -> None:
            with source.cursor() as reader:
                parameters = {"tenancy_id": TENANCY, "cursor": cursor, "limit": SYNC_BATCH}
                with reader.copy(copy, parameters) as pieces:
                    for _ in pieces:
                        pass

        return seconds(read)

    times = interleaved(ROUNDS, first=lambda: page(0), deep=lambda: page(rows - SYNC_BATCH))
    source.close()
    measured = f"{times['deep'] * 1000:,.0f} ms; {times['first'] * 1000:,.0f} ms at 0"
    what = f"a batch of {SYNC_BATCH:,} deep in {rows:,} rows, against cursor 0"
    return at_most("cursor", what, measured, ratio=times["deep"] / times["first"], goal=1.5)


def _verify(scene: Scene) -> Figure:
    rows = EQUAL * scene.rows
    source = scene.backend(rows, "equal")
    target = scene.fresh("equal-copy")
    database = {"type": "postgres", "url": scene.server.url("equal-copy"), "mappings": ["users"]}
    pipeline = scene.pipeline({TENANCY: {"copy": database}}, "equal")
    stamp(pipeline, SYNC_BATCH)
    sync(pipeline)
    for conn in (source, target):
        conn.execute("VACUUM ANALYZE")
    select = compile_mapping(pipeline.find_mapping("users"), "postgres").load
    checksum = "SELECT count(*), md5(string_agg(u::text, '' ORDER BY id)) FROM ({}) AS u"

    def whole() -> float:
        def both() -> None:
            with ThreadPoolExecutor(2) as threads:
                ours = threads.submit(source.execute, cast("LiteralString", checksum.format(select)),
                                      {"tenancy_id": TENANCY})  # fmt: skip
                theirs = threads.submit(target.execute, cast("LiteralString", checksum.format("TABLE users")))
                if ours.result().fetchone() != theirs.result().fetchone():
                    raise RuntimeError("the copy differs")

        return seconds(both)

    def ours() -> float:
        def compare() -> None:
            (check,) = verify(pipeline, service.Scope(None), Stop())
            if not check.ok or check.source_rows != rows:
                raise RuntimeError(f"verify found {check}")

        return seconds(compare)

    times = interleaved(VERIFY_ROUNDS, whole=whole, ours=ours)
    source.close()
    target.close()
    measured = f"{times['ours']:.1f} s; md5 of everything, both sides at once {times['whole']:.1f} s"
    what = f"verify {rows:,} equal rows, against count and md5(string_agg)"
    return at_most("verify", what, measured, ratio=times["ours"] / times["whole"], goal=2)
