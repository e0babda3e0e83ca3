"""What `stackctl _complete` says of a database: what is there, in time, and never at the price of a server's start."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING

from tests.backend import MINE, OTHER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backend import Project
    from tests.shop import Shop


def offered(folder: Path, *arguments: str) -> dict[str, str]:
    """Values and their descriptions; nothing else may be said."""
    ran = subprocess.run(
        [sys.executable, "-m", "stackctl", "_complete", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return {value: told for value, _, told in (line.partition("\t") for line in ran.stdout.splitlines())}


def test_the_database_is_asked_for_what_is_there(shop: Shop) -> None:
    bought = shop.buy()
    assert shop.refund(bought, "--full").code == 0
    with shop.connect() as conn:
        conn.execute(
            "INSERT INTO stackctl.delivery (tenancy_id, database_id, attempts, failing_since, last_attempt_at,"
            " last_error, last_error_code) VALUES (%s, 'analytics', 1, now(), now(), 'gone', 'unreachable')",
            (MINE,),
        )
        conn.execute('UPDATE "Project" SET "displayName" = %s', ("Ada's $(touch x)",))
    tenancies = offered(shop.directory, "tenancies")
    assert tenancies.keys() == {str(MINE), str(OTHER), "p"}  # the project's id will do, too
    assert set(tenancies.values()) == {""}  # what a shell might obey is not shown
    assert offered(shop.directory, "synced-tenancies") == {}
    ((purchase, told),) = offered(shop.directory, "purchases").items()
    assert uuid.UUID(purchase) == bought
    assert told.startswith("Lifetime of u1, ")
    ((_, told),) = offered(shop.directory, "refunds").items()
    assert told.startswith("19.99 USD, succeeded, ")
    assert offered(shop.directory, "failing") == {"analytics": "unreachable"}


def test_a_server_that_does_not_answer_is_not_waited_for(project: Project) -> None:
    project.settings["tenancies"] = {str(MINE): {"external_databases": {"local": {"type": "sqlite", "path": "a.db"}}}}
    project.write()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"postgresql://u@127.0.0.1:{deaf.getsockname()[1]}/d"
        began = time.monotonic()
        # What the file knows is there all the same.
        assert offered(project.directory, "tenancies", "--database-url", url) == {str(MINE): "local"}
        # Patience is that of a slow machine; a second is what the command allows itself, 10 what connecting would take.
        assert time.monotonic() - began < 8


def test_an_embedded_server_is_not_started(tmp_path: Path) -> None:
    assert offered(tmp_path, "tenancies", "--database-url", "embedded:./pg") == {}
    assert list(tmp_path.iterdir()) == []
