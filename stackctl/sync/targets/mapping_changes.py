"""What is to be done in a target whose copy was made from another mapping than the one that feeds it now."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, LiteralString, cast

from stackctl.core.errors import StateError
from stackctl.mapping.definition import compare_definition, describe_mapping, read_written
from stackctl.mapping.sql_text import quote
from stackctl.mapping.target_statements import TYPES
from stackctl.sync.targets.protocol import NEVER_SYNCED, CopyRecord

if TYPE_CHECKING:
    from collections.abc import Container

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.definition import MappingChange


@dataclass(frozen=True)
class ChangePolicy:
    """How changed mappings are met: followed as far as no reader loses anything (`evolve`), or refused.

    `rebuild` names the mapping whose table is about to be rebuilt, whatever has changed. `agreed`: the copies that
    this process has found, or made, as its own mapping files have them; these were loaded at `loaded_at`.
    """

    evolve: bool = True
    rebuild: str | None = None
    agreed: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class CopyChange:
    """What makes a copy follow its mapping, in one transaction: statements, then the record beside the cursor.

    `record` is None where nothing is to be written. `description` is for people; None where there is nothing to tell.
    """

    statements: tuple[LiteralString, ...] = ()
    record: CopyRecord | None = None
    description: str | None = None


def plan_change(
    compiled: Compiled,
    record: CopyRecord | None,
    *,
    cursor: int | None,
    columns: Container[str],
    database: ExternalDatabase,
    policy: ChangePolicy,
) -> CopyChange:
    """What a copy needs of which this is known: its record and cursor, if there are any, and the table's columns.

    Raises StateError `mapping-changed` for a change that is not followed, and `newer-stackctl`.
    """
    mapping = compiled.mapping
    change = compare_definition(record.definition if record else None, mapping, compiled.dialect)
    if mapping.name == policy.rebuild or (cursor is None and record is None):
        return CopyChange()  # what it is now does not matter, or is nobody's copy yet
    known = record is not None and record.fingerprint == compiled.fingerprint
    if known and change.kind == "same":
        return CopyChange()
    added = list(change.added)
    if change.kind == "unknown":
        added = [one for one in mapping.columns if one.nullable and one.name not in columns]
    elif change.kind != "same":
        written = read_written(record.definition if record else None)
        if written is not None and written > policy.loaded_at:
            raise changed_elsewhere_error(compiled, database)  # the files of this process are the older ones
        _refuse_change(compiled, change, columns, database, policy)
    table = quote(mapping.target)
    statements = [
        *(f"ALTER TABLE {table} ADD COLUMN {quote(c.name)} {TYPES[compiled.dialect][c.type]}" for c in added),
        *(f"ALTER TABLE {table} ALTER COLUMN {quote(name)} DROP NOT NULL" for name in change.relaxed),
    ]
    after, up_to = (record.resend_after, record.resend_up_to) if record else (None, None)
    if change.resend and cursor is not None and cursor > NEVER_SYNCED:
        # What is above the cursor comes anyway, made from the mapping as it is now.
        after, up_to = 0, cursor
        description = f"{change.description}; all its rows are sent again"
    else:
        description = change.description or None
    return CopyChange(
        tuple(cast("LiteralString", statement) for statement in statements),
        make_record(compiled, after, up_to),
        description and f"the copy of {mapping.name} follows its mapping: {description}",
    )


def refuse_other_table(
    compiled: Compiled, record: CopyRecord | None, database: ExternalDatabase, policy: ChangePolicy
) -> None:
    """Before the mapping's table is made: raise StateError `mapping-changed` if its copy is in another one so far."""
    if record is not None and compiled.mapping.name != policy.rebuild:
        change = compare_definition(record.definition, compiled.mapping, compiled.dialect)
        if change.moved:
            _refuse_change(compiled, change, (), database, policy)


def make_record(compiled: Compiled, resend_after: int | None = None, resend_up_to: int | None = None) -> CopyRecord:
    """What is written down of a copy that is made from this mapping."""
    return CopyRecord(compiled.fingerprint, describe_mapping(compiled.mapping), resend_after, resend_up_to)


def _refuse_change(
    compiled: Compiled,
    change: MappingChange,
    columns: Container[str],
    database: ExternalDatabase,
    policy: ChangePolicy,
) -> None:
    name, place = compiled.mapping.name, f"{database.tenancy} --database {database.id}"
    if (str(database.tenancy), database.id, name) in policy.agreed:
        raise changed_elsewhere_error(compiled, database)
    taken = [f"the table has a column {one.name} that is not stackctl's" for one in change.added if one.name in columns]
    if policy.evolve and change.kind != "rebuild" and not taken:
        return
    reasons = ", ".join([change.description, *taken])
    raise StateError(
        f"the mapping {name} is not what its copy in {database.id} was made from: {reasons}",
        code="mapping-changed",
        hint=f"rebuild the table: `stackctl sync {place} --rebuild {name}`; or revert the change",
        details={"mapping": name, "reasons": [*change.reasons, *taken]},
    )


def changed_elsewhere_error(compiled: Compiled, database: ExternalDatabase) -> StateError:
    """A copy that was this mapping's, and has become another's while this process ran."""
    name = compiled.mapping.name
    return StateError(
        f"another stackctl feeds the copy of {name} in {database.id} from another version of its mapping",
        code="mapping-changed",
        hint="give both the same mapping files, then restart this one",
        details={"mapping": name},
    )


def not_rebuilt_error(compiled: Compiled, where: str, reason: str) -> StateError:
    """What stands in the way of a table that was to be rebuilt; nothing has happened to it."""
    return StateError(
        f'{where}: the table "{compiled.mapping.target}" can\'t be rebuilt: {reason}',
        code="mapping-changed",
        hint="drop that, or keep the part of the mapping that it needs, then run it again",
        details={"mapping": compiled.mapping.name},
    )


def refuse_mixed_copy(compiled: Compiled, record: CopyRecord | None, database: ExternalDatabase) -> None:
    """Before a copy is compared with its source: raise StateError if some of its rows are of an older mapping.

    The codes are `mapping-changed` and `resend-unfinished`.
    """
    if record is None:
        return
    check_fingerprint(compiled, record.fingerprint, database, prepared=False)
    if record.resend_up_to is not None:
        name = compiled.mapping.name
        raise StateError(
            f"the copy of {name} in {database.id} follows a change of its mapping, and rows are still to be sent again",
            code="resend-unfinished",
            hint=f"`stackctl sync {database.tenancy} --database {database.id}` sends them now; `stackctl run` is at it",
        )


def check_fingerprint(compiled: Compiled, fingerprint: object, database: ExternalDatabase, *, prepared: bool) -> None:
    """Raise StateError `mapping-changed` for a copy that is recorded as another mapping's; None is nobody's.

    `prepared`: this connection has found it its own before.
    """
    if fingerprint is None or fingerprint == compiled.fingerprint:
        return
    if prepared:
        raise changed_elsewhere_error(compiled, database)
    name = compiled.mapping.name
    raise StateError(
        f"the copy of {name} in {database.id} has yet to follow its mapping, which was changed",
        code="mapping-changed",
        hint=f"`stackctl mappings diff` says what it takes, `stackctl sync {database.tenancy} --database {database.id}`"
        " does it, and so does `stackctl run`, unless the table has to be rebuilt",
        details={"mapping": name},
    )
