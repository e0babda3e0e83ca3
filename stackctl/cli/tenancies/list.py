"""stackctl tenancies list"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.tables import Column


@command(example="stackctl tenancies list\nstackctl tenancies list --json\nstackctl tenancies list -o csv", lists=True)
def list_(
    run: Run,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="At most so many.")] = 100,
) -> None:
    """List the tenancies of the operated database, by project and branch, with the external databases of each.

    Where a command asks for a tenancy, its id will do, or the beginning of the id, or the id of its project, as long
    as that fits one tenancy alone.

    Prints a row for each tenancy.
    Exit codes: 0 printed; 4 the operated database can't be reached; 5 it was never migrated.
    """
    from stackctl.backend import tenancies
    from stackctl.sync.pipeline import Pipeline

    with run.database() as conn:
        found = tenancies.list_tenancies(conn, limit + 1)
        pipeline = Pipeline(run.settings)
        pipeline.refresh(conn)
    more, found = len(found) > limit, found[:limit]
    databases = {one.id: [database.id for database in pipeline.databases.get(one.id, ())] for one in found}
    document = {
        "tenancies": [
            {
                "tenancy": one.id,
                "project": one.project,
                "project_name": one.project_name,
                "branch": one.branch,
                "organization": one.organization,
                "databases": databases[one.id],
            }
            for one in found
        ]
    }

    rows = [
        (
            one.id,
            one.project,
            one.project_name,
            one.branch + (f", organization {one.organization}" if one.organization else ""),
            ", ".join(databases[one.id]) or None,
        )
        for one in found
    ]
    run.finish_list(
        document,
        (
            "tenancy",
            Column("project", spare=3),
            Column("name", folds=True),
            Column("branch", folds=True, spare=1),
            Column("databases", folds=True, spare=2),
        ),
        rows,
        empty="there is no tenancy in the operated database",
    )
    if more and not run.json_output:
        run.console.info(f"the first {limit}; --limit shows more")
