"""What one schema has that another lacks, as SQL that makes the first like the second, in an order that runs."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stackctl.migrate.schema.alterations import Change, NotInPlaceError, alter, changes_type, is_widened

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from stackctl.migrate.schema.things import Key, SchemaState, Thing

    _Node = tuple[Literal["drop", "make"], Key]

# What is made first where nothing else decides; dropped is in the opposite order.
_ORDER = (
    "extension", "type", "sequence", "routine", "table", "column", "default", "parent", "constraint", "owner", "view",
    "index", "trigger", "policy", "revoked", "grant", "comment",
)  # fmt: skip
_SPLIT = "-- stackctl:split"
_OUTSIDE = "-- stackctl:outside-transaction"


@dataclass(frozen=True)
class SchemaDifference:
    """`changes`: statements in order. `omitted`: what else is different, and no statement here makes equal."""

    changes: tuple[Change, ...]
    omitted: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.changes and not self.omitted


def compare_schemas(before: SchemaState, after: SchemaState) -> SchemaDifference:
    """The way from `before` to `after`. Of other schemas only the names count."""
    comparison = _Comparison(before.things, after.things)
    changes = tuple(comparison.list_changes())
    omitted = [*comparison.impossible]
    for kind, name in sorted(before.unread.keys() | after.unread.keys()):
        old, new = before.unread.get((kind, name)), after.unread.get((kind, name))
        if old != new:
            how = "is to go" if new is None else "is missing" if old is None else "is to be another"
            omitted.append(f"{kind} {name} {how}: write that by hand")
    omitted += [f"schema {name} is to go, with what is in it" for name in sorted(before.schemas - after.schemas)]
    omitted += [f"schema {name} is missing, with what is in it" for name in sorted(after.schemas - before.schemas)]
    return SchemaDifference(changes, tuple(omitted))


def write_difference(difference: SchemaDifference, concurrently: Collection[str] = ()) -> str:
    """As a migration, with a comment over each statement that destroys something, and for what no statement does.

    The indexes called `concurrently` are dropped and built in that way.
    """
    apart = [change for change in difference.changes if change.key[0] == "index" and change.key[1] in concurrently]
    changes = [change for change in difference.changes if change not in apart]
    early = [change for change in changes if " ADD VALUE " in change.sql and change.key[0] == "type"]
    rest = [change for change in changes if change not in early]
    if not any(_read_label(change) in other.sql for change in early for other in rest):
        early, rest = [], changes
    # A transaction may not use a value that it has added itself.
    first = [*early, *(_make_concurrent(change) for change in apart if change.sql.startswith("DROP"))]
    last = [_make_concurrent(change) for change in apart if not change.sql.startswith("DROP")]
    inside = [_write_change(change) for change in rest]
    if any(change.key[0] == "routine" and change.sql.startswith("CREATE") for change in rest):
        inside.insert(0, "SET check_function_bodies = off;  -- a body may name what comes further down")
    parts = [_write_outside(first), "\n\n".join(inside), _write_outside(last)]
    blocks = [f"\n\n{_SPLIT}\n".join(part for part in parts if part)]
    blocks += [f"-- not done: {' '.join(what.split())}" for what in difference.omitted]
    text = "\n\n".join(block for block in blocks if block)
    return f"{text}\n" if text else ""


def _write_outside(changes: Sequence[Change]) -> str:
    return f"{_OUTSIDE}\n" + "\n\n".join(map(_write_change, changes)) if changes else ""


def _write_change(change: Change) -> str:
    remarks = (f"destroys: {change.loses}" if change.loses else "", change.remark)
    return "".join(f"-- {' '.join(remark.split())}\n" for remark in remarks if remark) + f"{change.sql};"


def _make_concurrent(change: Change) -> Change:
    return replace(change, sql=re.sub(r"^(DROP|CREATE|CREATE UNIQUE) INDEX", r"\1 INDEX CONCURRENTLY", change.sql))


def _read_label(change: Change) -> str:
    found = re.search(r" ADD VALUE ('(?:[^']|'')*')", change.sql)
    assert found is not None
    return found[1]


class _Comparison:
    def __init__(self, before: Mapping[Key, Thing], after: Mapping[Key, Thing]) -> None:
        self._before = before
        self._after = after
        self._users: defaultdict[Key, set[Key]] = defaultdict(set)
        self._held: defaultdict[Key, set[Key]] = defaultdict(set)
        for key, thing in before.items():
            for needed in thing.needs:
                self._users[needed].add(key)
            if thing.gone_with:
                self._held[thing.gone_with].add(key)
        self.impossible: list[str] = []
        self._altered: dict[Key, tuple[Change, ...]] = {}
        self._gone: set[Key] = set()
        self._made: set[Key] = set()

    def list_changes(self) -> Iterator[Change]:
        anew = self._alter_in_place()
        self._gone = self._spread([key for key in self._before if key not in self._after], strict=False) or set()
        for key in anew:
            spread = self._spread([key], strict=True)
            if spread is None:
                self._refuse(key)
            else:
                self._gone |= spread
        self._made = {key for key in self._after if key not in self._before or key in self._gone}
        for key in self._gone | self._made:
            self._altered.pop(key, None)
        yield from self._sort()

    def _alter_in_place(self) -> list[Key]:
        """Find what can be altered; the rest, and what is in the way of that, is to be made anew."""
        anew: list[Key] = []
        for key, before in self._before.items():
            after = self._after.get(key)
            if after is None or before.state == after.state or None in (before.state, after.state):
                continue
            try:
                self._altered[key] = alter(before, after)
            except NotInPlaceError as error:
                if error.impossible:
                    self.impossible.append(error.impossible)
                    if error.changes:
                        self._altered[key] = error.changes
                else:
                    anew.append(key)
                continue
            if changes_type(before, after):
                anew += self._find_in_the_way(key)
        return anew

    def _find_in_the_way(self, column: Key) -> Iterator[Key]:
        """What PostgreSQL does not carry over when a column gets another type."""
        old, new = self._before[column].source[0].type, self._after[column].source[0].type
        for key in self._users[column]:
            thing, after = self._before[key], self._after.get(key)
            if after is None or thing.kind in ("column", "index", "owner", "comment", "grant", "parent"):
                if thing.kind == "column" and thing.source[0].generated:
                    yield key
                continue
            if thing.kind == "default" and thing.state == after.state and is_widened(old, new):
                continue
            if thing.kind != "constraint" or thing.source.kind == "f":
                yield key

    def _spread(self, keys: Iterable[Key], *, strict: bool) -> set[Key] | None:
        """Those and what can't stay when they go; None when that is what must never be made anew."""
        found: set[Key] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key in found:
                continue
            if key in self._after and not self._may_be_made_anew(key):
                if strict:
                    return None
                continue
            found.add(key)
            waiting += [held for held in self._held[key] if held[0] != "sequence" or held not in self._after]
            waiting += [user for user in self._users[key] if not self._stops_needing(user, key)]
        return found

    def _may_be_made_anew(self, key: Key) -> bool:
        before, after = self._before[key], self._after[key]
        if key[0] == "column":
            generated = before.source[0].generated or after.source[0].generated
            return bool(generated) or before.state is None
        return key[0] not in ("table", "sequence")

    def _stops_needing(self, key: Key, needed: Key) -> bool:
        """Whether it is enough to alter it. Some come to need what can only be made, or altered, after the drop."""
        moves_on = key[0] in ("routine", "view", "owner", "grant")
        return key in self._altered and not moves_on and needed not in self._after[key].needs

    def _refuse(self, key: Key) -> None:
        thing = self._after[key]
        self._altered.pop(key, None)
        self.impossible.append(
            f"{key[0]} {thing.shown} is to be another, and columns need it as it is: {'; '.join(thing.create)}"
        )

    def _follows_parent(self, thing: Thing) -> bool:
        """Whether what happens to its parent's namesake happens to it, too: it has a parent, before and afterwards."""
        return thing.inherited and self._find_parent(self._table_of(thing)) is not None

    def _find_parent(self, table: str) -> str | None:
        links = (key for key in self._held["table", table] if key[0] == "parent")
        return next((key[2] for key in links if key in self._after and key not in self._gone), None)

    def _table_of(self, thing: Thing) -> str:
        return thing.source.table if thing.kind == "index" else thing.key[1]

    def _altered_by(self, key: Key) -> Key:
        followed = self._follows_parent(self._before[key]) and self._follows_parent(self._after[key])
        parent = (key[0], self._find_parent(key[1]) or "", *key[2:])
        return self._altered_by(parent) if followed and parent in self._altered else key

    def _made_by(self, key: Key) -> Key:
        if key in self._altered:
            return self._altered_by(key)
        holder = self._after[key].made_with
        return self._made_by(holder) if holder in self._made and key in self._made and holder is not None else key

    def _dropped_by(self, key: Key) -> Key:
        thing = self._before[key]
        holder = thing.gone_with
        if holder is None or holder not in self._gone or self._is_in_a_ring(thing):
            return key
        return self._dropped_by(holder)

    def _is_in_a_ring(self, thing: Thing) -> bool:
        """Whether a foreign key's table and the one it refers to need each other, and both are dropped."""
        if thing.kind != "constraint" or thing.source.kind != "f":
            return False
        seen: set[Key] = set()
        waiting = [other for other in self._find_referenced(thing) if other != thing.gone_with]
        while waiting:
            table = waiting.pop()
            if table == thing.gone_with:
                return True
            if table not in seen and table in self._gone:
                seen.add(table)
                for held in self._held[table]:
                    if held[0] == "constraint" and self._before[held].source.kind == "f":
                        waiting += self._find_referenced(self._before[held])
        return False

    def _find_referenced(self, foreign_key: Thing) -> set[Key]:
        return {("table", need[1]) for need in foreign_key.needs if need[0] in ("column", "constraint")}

    def _sort(self) -> Iterator[Change]:
        statements: dict[_Node, tuple[Change, ...]] = {}
        first: defaultdict[_Node, set[_Node]] = defaultdict(set)
        for key in self._gone:
            thing = self._before[key]
            if self._dropped_by(key) == key and thing.drop and not self._follows_parent(thing):
                loses = "" if key in self._after and not thing.loses else thing.loses
                statements["drop", key] = tuple(
                    replace(self._remark_drop(Change(key, sql)), loses=loses) for sql in thing.drop
                )
        for key in self._made:
            thing = self._after[key]
            if self._made_by(key) == key and thing.create and not self._follows_parent(thing):
                statements["make", key] = tuple(self._remark_make(Change(key, sql)) for sql in thing.create)
        for key, changes in self._altered.items():
            if self._altered_by(key) == key:
                statements["make", key] = changes
        slots = {slot: self._dropped_by(key) for key in self._gone for slot in self._before[key].slots}
        for key in self._made | self._altered.keys():
            node: _Node = ("make", self._made_by(key))
            for needed in self._after[key].needs:
                first[node].add(("make", self._made_by(needed)))
            first[node] |= {("drop", slots[slot]) for slot in self._after[key].slots if slot in slots}
            if key in self._gone:
                first[node].add(("drop", self._dropped_by(key)))
        for needed, users in self._users.items():
            for user in users:
                if needed in self._gone:
                    last: _Node = ("drop", self._dropped_by(needed))
                    if user in self._gone:
                        first[last].add(("drop", self._dropped_by(user)))
                    elif user in self._altered:
                        first[last].add(("make", self._made_by(user)))
                elif needed in self._altered and user in self._gone:
                    first["make", self._made_by(needed)].add(("drop", self._dropped_by(user)))
        self._sort_around_parents(first)
        self._sort_logging(first)
        for node, others in first.items():
            others.discard(node)
        return self._visit(statements, first)

    def _sort_around_parents(self, first: defaultdict[_Node, set[_Node]]) -> None:
        """A table is taken from its parent before either changes, and is given to one when both have.

        One that comes or goes as a whole is given or taken with that, whatever it has of its own.
        """
        links = [key for key in self._gone | self._made if key[0] == "parent"]
        tables = {table for link in links for table in link[1:]}
        changing: defaultdict[str, list[_Node]] = defaultdict(list)
        for key in self._gone | self._made | self._altered.keys():
            if key[0] in ("column", "constraint", "default", "index"):
                thing = (self._after if key in self._after else self._before)[key]
                if (table := self._table_of(thing)) in tables:
                    if key in self._gone:
                        changing[table].append(("drop", self._dropped_by(key)))
                    if key in self._made or key in self._altered:
                        changing[table].append(("make", self._made_by(key)))
        for link in links:
            _, child, parent = link
            if link in self._gone:
                taken = self._dropped_by(link)
                for node in changing[parent] + (changing[child] if taken == link else []):
                    first[node].add(("drop", taken))
            if link in self._made:
                given = self._made_by(link)
                first["make", given].update(changing[parent] + (changing[child] if given == link else []))

    def _sort_logging(self, first: defaultdict[_Node, set[_Node]]) -> None:
        """No logged table may refer to one that is not."""
        for key, thing in self._after.items():
            if key[0] != "constraint" or thing.source.kind != "f" or key in self._made:
                continue
            for referenced in self._find_referenced(thing):
                pair: list[_Node] = [("make", ("table", key[1])), ("make", referenced)]
                if referenced in self._altered and pair[0][1] in self._altered:
                    earlier, later = pair if self._after[referenced].source.unlogged else reversed(pair)
                    first[later].add(earlier)

    def _visit(
        self, statements: Mapping[_Node, tuple[Change, ...]], first: Mapping[_Node, set[_Node]]
    ) -> Iterator[Change]:
        def rank(node: _Node) -> tuple[int, int, int, Key]:
            what, key = node
            place = _ORDER.index(key[0])
            late = key[0] == "constraint" and (self._after if what == "make" else self._before)[key].source.kind == "f"
            place = _ORDER.index("index") if late else place
            adds_value = what == "make" and key[0] == "type" and key in self._altered
            return (1 - adds_value if what == "make" else 2), place if what == "make" else -place, late, key

        done: set[_Node] = set()
        for start in sorted(statements, key=rank):
            # Depth first, without recursion: chains may be long.
            stack: list[tuple[_Node, Iterator[_Node]]] = []
            if start not in done:
                done.add(start)
                stack.append((start, iter(sorted(first.get(start, ()), key=rank))))
            while stack:
                node, before = stack[-1]
                following = next((other for other in before if other not in done), None)
                if following is None:
                    stack.pop()
                    yield from statements.get(node, ())
                else:
                    done.add(following)
                    stack.append((following, iter(sorted(first.get(following, ()), key=rank))))

    def _remark_make(self, change: Change) -> Change:
        if change.key[0] != "column":
            return change
        column = self._after[change.key].source[0]
        needs_value = column.not_null and column.expression is None and not column.identity
        return (
            replace(change, remark="fails while the table has rows: they have no value for it")
            if needs_value
            else change
        )

    def _remark_drop(self, change: Change) -> Change:
        """A column that goes while one like it comes may have been renamed."""
        if change.key[0] != "column" or change.key in self._after:
            return change
        _, table, _ = change.key
        old = self._before[change.key]
        likely = [
            self._after[key]
            for key in self._made
            if key[:2] == ("column", table)
            and key not in self._before
            and self._after[key].source[0].type == old.source[0].type
        ]
        if len(likely) != 1 or ("table", table) in self._made:
            return change
        start, _, column = old.source[2].partition(" ALTER COLUMN ")
        to = likely[0].source[2].partition(" ALTER COLUMN ")[2]
        return replace(change, remark=f"if it was renamed: {start} RENAME COLUMN {column} TO {to}")
