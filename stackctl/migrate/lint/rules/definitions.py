"""Rules about what is given another definition while the previous version of the application still uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, suggest_allow, suggest_later_release
from stackctl.migrate.parser.facts import (
    DefaultSet,
    InheritanceDropped,
    ObjectDropped,
    ObjectRenamed,
    ObjectReplaced,
    OptionsChanged,
    PartitionMoved,
    ReplicaIdentityChanged,
    SequenceChanged,
    TypeDefinitionChanged,
)

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState


@rule("default-changed", "advice", "a column gets another default",
      why="rows of the previous version that leave the column out get another value", fact=DefaultSet)  # fmt: skip
def default_changed(fact: DefaultSet, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column) or state.has_created("type", fact.table):
        return None
    if state.schema.tables[fact.table].defaults.get(fact.column) is False:
        return None
    column = fact.table.sibling(fact.column).shown
    return RuleMatch(
        f"the default of {column} of {fact.table} is set",
        suggest_allow("default-changed", "the previous version knows what to do with it: …", fact.text),
    )


@rule("type-changed", "error", "a composite type or a domain gets another definition",
      why="the previous version of the application reads and writes it as it was",
      fact=TypeDefinitionChanged)  # fmt: skip
def type_changed(fact: TypeDefinitionChanged, state: FileState) -> RuleMatch | None:
    if state.has_created("type", fact.type):
        return None
    what = f"type {fact.type}: {fact.how}"
    return suggest_later_release("type-changed", what, fact.text, "no released version minds: …")


@rule("sequence-changed", "advice", "a sequence is to give other numbers",
      why="the previous version draws them, too; a number must not come twice", fact=SequenceChanged)  # fmt: skip
def sequence_changed(fact: SequenceChanged, state: FileState) -> RuleMatch | None:
    made = state.has_added_column(fact.name, fact.column) if fact.column else state.has_created("sequence", fact.name)
    if made:
        return None
    owner = f"that of column {fact.name.sibling(fact.column).shown} of {fact.name}" if fact.column else str(fact.name)
    safe = suggest_allow("sequence-changed", "no number can come twice: …", fact.text)
    return RuleMatch(f"sequence {owner}: {fact.how}", safe)


@rule("view-changed", "advice", "a view is replaced",
      why="the previous version of the application reads other rows from it, or other columns",
      fact=(ObjectReplaced, ObjectDropped))  # fmt: skip
def view_changed(fact: ObjectReplaced | ObjectDropped, state: FileState) -> RuleMatch | None:
    if fact.kind != "view" or state.has_created("view", fact.name):
        return None
    if isinstance(fact, ObjectDropped) and not state.creates_later("view", fact.name):
        return None  # that is drop-view
    return RuleMatch(f"view {fact.name} is replaced", "-- compare what both return; drop no column of it")


@rule("function-changed", "warning", "a function is dropped and made again",
      why="calls of the previous version find no function that fits, or read another result, unless the arguments and "
      "the result stay; then CREATE OR REPLACE does it", fact=ObjectDropped)  # fmt: skip
def function_changed(fact: ObjectDropped, state: FileState) -> RuleMatch | None:
    if fact.kind != "function" or not state.creates_later("function", fact.name):
        return None
    if state.has_created_function(fact.name, fact.arguments):
        return None
    return RuleMatch(
        f"function {fact.name} is dropped and made again",
        "-- make the new one beside the old one, give what it takes more a default, or use CREATE OR REPLACE FUNCTION",
    )


@rule("relation-kind", "advice", "a view takes the place of a table",
      why="the previous version reads it as before, but its writes may fail, and so does COPY",
      fact=ObjectRenamed)  # fmt: skip
def relation_kind(fact: ObjectRenamed, state: FileState) -> RuleMatch | None:
    if fact.kind != "table" or state.has_created("table", fact.name) or not state.creates_later("view", fact.name):
        return None
    return RuleMatch(
        f"a view takes the place of table {fact.name}", "-- make sure that the view can be written to as the table was"
    )


@rule("constraint-renamed", "advice", "a constraint or an index is renamed",
      why="a version that knows its name does not find it in errors", fact=ObjectRenamed)  # fmt: skip
def constraint_renamed(fact: ObjectRenamed, state: FileState) -> RuleMatch | None:
    if fact.kind not in ("constraint", "index") or state.has_created("index", fact.name):
        return None
    if fact.table and state.has_added_constraint(fact.table, fact.name.name):
        return None
    of = f" of {fact.table}" if fact.table else ""
    return RuleMatch(
        f"{fact.kind} {fact.name}{of} becomes {fact.to}",
        suggest_allow("constraint-renamed", "no version asks for its name: …", fact.text),
    )


@rule("options-changed", "advice", "a function, view, role, database, extension or the server gets other options",
      why="what the previous version runs on changes under it, at once and for everybody",
      fact=OptionsChanged)  # fmt: skip
def options_changed(fact: OptionsChanged, state: FileState) -> RuleMatch | None:
    if fact.name and (state.has_created(fact.kind, fact.name) or state.whole.created[fact.kind, fact.name]):
        return None
    what = f"{fact.kind} {fact.name or ''}".strip()
    safe = suggest_allow("options-changed", "no version minds: …", fact.text)
    return RuleMatch(f"{what}: {fact.how}", OUTSIDE + safe if fact.kind == "system" else safe)


@rule("replica-identity-changed", "advice", "REPLICA IDENTITY of a table is changed",
      why="subscribers find changed rows by it; with NOTHING, or an index that goes, UPDATE and DELETE of a published "
      "table are refused", fact=ReplicaIdentityChanged)  # fmt: skip
def replica_identity_changed(fact: ReplicaIdentityChanged, state: FileState) -> RuleMatch | None:
    if not state.is_live(fact.table):
        return None
    safe = suggest_allow("replica-identity-changed", "no publication has the table: …", fact.text)
    return RuleMatch(f"replica identity of {fact.table}: {fact.how}", safe)


@rule("rows-leave-parent", "advice", "a table no longer inherits, or is a partition no more",
      why="queries of the previous version on the parent do not see its rows any more",
      fact=(InheritanceDropped, PartitionMoved))  # fmt: skip
def rows_leave_parent(fact: InheritanceDropped | PartitionMoved, state: FileState) -> RuleMatch | None:
    if isinstance(fact, InheritanceDropped):
        child, parent = fact.table, fact.parent
    elif fact.how == "detach":
        child, parent = fact.partition, fact.table
    else:
        return None
    if not state.is_live(child) or not state.is_live(parent):
        return None
    what = f"the rows of {child} are no longer those of {parent}"
    safe = suggest_allow("rows-leave-parent", "nobody asks for them any more: …", fact.text)
    return RuleMatch(what, OUTSIDE + safe if isinstance(fact, PartitionMoved) and fact.concurrently else safe)
