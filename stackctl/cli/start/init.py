"""stackctl init: a commented stackctl.yaml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.core.errors import ConfigError, StateError

TEMPLATE = """\
# stackctl.yaml: what stackctl operates. Every key is here; those commented out show their default.
#
# ${NAME} and ${NAME:-default} are filled from the environment when the value is used, so that secrets can stay
# outside this file. Relative paths are relative to this file. Flags and variables beat it.
# `stackctl config show` prints what applies and where it came from.
version: 1

database:
  # The PostgreSQL to operate: a connection URL (postgresql://user@host:5432/dbname), or `embedded` /
  # `embedded:DIR`, a server that stackctl starts itself. Also: --database-url, STACKCTL_DATABASE_URL.
  url: "${STACKCTL_DATABASE_URL}"
  # Where the sync engine reads, if not there: a read replica.
  # replica_url: null
  # The schema with the backend's tables.
  # schema: public
  # Who marks changed rows: triggers (in the database), application (the backend), or auto (find out).
  # change_capture: auto

# Folders of your own mapping files and migrations; null means the ones that come with stackctl. A list of both,
# [bundled, ./mappings], has all of them.
# mappings_dir: null
# migrations:
  # dir: null
  # The name of that folder's own history, where two services migrate one schema.
  # history: null
  # What `stackctl migrate lint` asks and reports: rules to leave out, other severities, the first version.
  # lint:
    # disable: null
    # severity: null
    # from: null

# sync:
  # Rows read and written at once.
  # batch_size: 20000
  # Rows stamped with a sequence number in one transaction.
  # stamp_batch_size: 1000
  # Databases synced side by side.
  # workers: 4
  # How long to wait when there was nothing to do: 50ms, 30s, 3m, 1h, 2d, 1w.
  # sequencer_interval: 50ms
  # poller_interval: 50ms
  # How the loops learn of work: poll, or notify (by LISTEN and NOTIFY; not through a transaction pooler).
  # wakeup: poll
  # After a fail-over: refuse copies that are ahead of the database, or repair (compare and correct all of them).
  # on_failover: refuse
  # Copies whose mapping was changed: evolve, they follow it where no reader loses anything; refuse, they wait.
  # schema_changes: evolve
  # Who syncs what was claimed: direct, this process; http, a `stackctl serve` that it is posted to, signed;
  # qstash, the same by way of a delivery service.
  # dispatch: direct
  # Where it is posted to, as https://sync.example.com/sync-engine, and how long its answer is waited for.
  # endpoint: null
  # endpoint_timeout: 90s
  # signing_keys: {current: "${SIGNING_KEY}", next: null}
  # qstash: {url: https://qstash.upstash.io, token: "${QSTASH_TOKEN}"}

# `stackctl serve`; a token is needed where others can reach it.
# serve: {host: 127.0.0.1, port: 8787, public_url: null, token: null}

# Where tenancies name their databases: config, below, or backend, in their own configuration in the database.
# external_databases_from: config
# external_databases_local: refuse

# The external databases of each tenancy, by the tenancy's id. `mappings` is all of them when left out.
# tenancies:
  # 00000000-0000-4000-8000-000000000000:
    # external_databases:
      # analytics: {type: postgres, url: "${ANALYTICS_URL}", mappings: [users, contact_channels]}
      # local: {type: sqlite, path: ./analytics.db}
      # warehouse: {type: duckdb, path: ./analytics.duckdb}   # pip install 'stackctl[duckdb]'

# sign_up_rules: ./sign-up-rules.yaml

# payments:
  # Also: --stripe-api-key, STRIPE_API_KEY.
  # stripe_api_key: "${STRIPE_API_KEY}"
  # Another address of the Stripe API, for tests. Also: --stripe-api-base, STACKCTL_STRIPE_API_BASE.
  # stripe_api_base: null
  # What Stripe signs events with that it sends to `stackctl serve`: a list.
  # webhook_secrets: null
  # Where to tell of payments that need a person.
  # telegram:
    # bot_token: null
    # chat_id: null
"""


@command(example="stackctl init --dry-run\nstackctl init\nstackctl init --force")
def init(
    run: Run,
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="The file to write; ./stackctl.yaml when left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the file, write nothing.")] = False,
) -> None:
    """Write a commented stackctl.yaml, readable by you alone.

    Prints the file's path; with --dry-run the file itself.
    Exit codes: 0 written; 5 the file exists, and --force is missing.
    """
    target = path or run.options["config"] or Path("stackctl.yaml")
    if target.is_dir():
        target /= "stackctl.yaml"
    if not dry_run:
        _write(target, force=force)

    def show() -> None:
        if dry_run:
            run.console.document(TEMPLATE)
            return
        run.console.line(f"wrote {target}")
        run.console.info("next: set STACKCTL_DATABASE_URL (or edit database.url), then run `stackctl doctor`")

    run.finish({"path": str(target.absolute()), "written": not dry_run, "content": TEMPLATE}, show)


def _write(target: Path, *, force: bool) -> None:
    # Created for the owner alone from the first byte: people write passwords into it. O_EXCL: a file that appears
    # meanwhile is not overwritten either.
    try:
        if force:
            target.unlink(missing_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StateError(
            f"{target} exists", code="file-exists", hint="overwrite it with --force, or name another file"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{target} can't be written: {error.strerror}", code="file-not-written", hint="name another file"
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(TEMPLATE)
