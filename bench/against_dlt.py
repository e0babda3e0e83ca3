"""Whole processes: `stackctl sync` of the users against dlt, which loads the same rows of a view.

dlt in its fastest form for this: Arrow batches, CSV files, COPY; the second time an upsert by key. It needs the extra
`stackctl[bench]`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, LiteralString, cast

from psycopg.conninfo import conninfo_to_dict

from bench.scene import SYNC_BATCH, TENANCY, Figure, at_least, interleaved, run, seconds, stamp

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from bench.scene import Scene

NAMES = ("against-dlt",)
ROUNDS = 3
GOAL = 5  # times as fast
CHUNK = 50_000  # rows of an Arrow batch
VIEW = "copied_users"

_TOUCH = 'UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\''


def figures(scene: Scene, wanted: Collection[str]) -> Iterator[Figure]:
    """The rows of the table, of NAMES."""
    importlib.import_module("dlt")  # an ImportError is said before anything is filled
    source = scene.backend(scene.rows)
    mapping = scene.pipeline({}).find_mapping("users")
    # Types that dlt's files can't hold as they are become text, which is the quickest for it.
    columns = ", ".join(f"{c.name}::text" if c.type == "json" else c.name for c in mapping.columns)
    select = mapping.select.replace(":tenancy_id", f"'{TENANCY}'")
    view = f"CREATE VIEW {VIEW} AS SELECT {columns} FROM ({select}) AS u"  # noqa: S608 - a mapping's own parts
    source.execute(cast("LiteralString", view))
    pipeline = scene.pipeline({TENANCY: {"copy": {"type": "postgres", "url": scene.server.url("copy"),
                                                  "mappings": ["users"]}}})  # fmt: skip
    stamp(pipeline, SYNC_BATCH)
    ours = [
        sys.executable,
        "-m",
        "stackctl",
        "sync",
        "--all",
        "--quiet",
        "--config",
        str(scene.directory / "stackctl.yaml"),
    ]

    def sync_ours(*, fresh: bool) -> float:
        if fresh:
            scene.fresh("copy").close()
        else:
            run(source, _TOUCH)
            stamp(pipeline, SYNC_BATCH)
        return seconds(lambda: subprocess.run(ours, check=True, cwd=scene.directory, stdout=subprocess.DEVNULL))

    def sync_theirs(*, fresh: bool) -> float:
        if fresh:
            scene.fresh("dlt").close()
            shutil.rmtree(scene.directory / "dlt", ignore_errors=True)
        else:
            run(source, _TOUCH)
            stamp(pipeline, SYNC_BATCH)
        place = str(scene.directory / "dlt")
        program = [sys.executable, "-m", "bench.against_dlt", _to_url(scene, "backend", "+psycopg2"),
                   _to_url(scene, "dlt"), "append" if fresh else "merge", place]  # fmt: skip
        environ = os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
        return seconds(lambda: subprocess.run(program, check=True, env=environ, stdout=subprocess.DEVNULL))

    times = interleaved(
        ROUNDS,
        ours=lambda: sync_ours(fresh=True),
        again=lambda: sync_ours(fresh=False),
        theirs=lambda: sync_theirs(fresh=True),
        theirs_again=lambda: sync_theirs(fresh=False),
    )
    for what, mine, their in (("first load", "ours", "theirs"), ("all rows changed", "again", "theirs_again")):
        yield at_least("against-dlt", f"whole process against dlt, {what}",
                       f"{times[mine]:.2f} s; dlt {times[their]:.2f} s", ratio=times[their] / times[mine],
                       goal=GOAL)  # fmt: skip
    source.close()


def _to_url(scene: Scene, database: str, driver: str = "") -> str:
    """As SQLAlchemy and dlt want it: with a host and a password, which the socket does not ask for."""
    place = conninfo_to_dict(scene.server.url(database))
    return f"postgresql{driver}://{place['user']}:none@localhost:{place['port']}/{database}?host={place['host']}"


def load(source: str, target: str, disposition: str, directory: str) -> None:
    """One run of dlt; the process that is measured."""
    dlt = importlib.import_module("dlt")
    sql_database = importlib.import_module("dlt.sources.sql_database")
    destinations = importlib.import_module("dlt.destinations")
    table = sql_database.sql_table(credentials=source, table=VIEW, backend="pyarrow", chunk_size=CHUNK)
    merge = {"disposition": "merge", "strategy": "upsert"}
    table.apply_hints(primary_key="id", write_disposition=merge if disposition == "merge" else disposition)
    pipeline = dlt.pipeline(
        f"bench_{VIEW}", pipelines_dir=directory, destination=destinations.postgres(target),
        dataset_name="copied",
    )  # fmt: skip
    pipeline.run(table, loader_file_format="csv")


if __name__ == "__main__":
    load(*sys.argv[1:])
