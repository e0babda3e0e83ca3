"""A schema as things: each with what makes it, what takes it away again, and what has to be there first.

A thing is called by a key: `("table", "user")`, `("column", "user", "id")`, `("routine", "f(integer, text)")`, with
names as they are stored.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from stackctl.migrate.schema.catalog import read_catalog, unquote_name
from stackctl.migrate.schema.dump import hold_schema, read_reserved_words
from stackctl.migrate.schema.writer import (
    SchemaWriter,
    format_comment,
    format_privilege,
    format_sequence_options,
)
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import psycopg

    from stackctl.migrate.schema.catalog import Catalog, Column, Constraint, Grant, Relation, Routine

Connection: TypeAlias = "psycopg.Connection[Any]"
Key: TypeAlias = "tuple[str, ...]"

_SQL = load_statements(__file__)
_ENABLED = {"O": "ENABLE", "D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


@dataclass(frozen=True)
class Thing:
    """Something that can be made and dropped. `shown`: how SQL names it. `source`: the catalog's own.

    `state`: what differs when it is not the same. `made_with`: what makes it, too, when that is made; `gone_with`: what
    takes it along when that is dropped. `loses`: what a drop destroys. `slots`: names that only one thing may have.
    `inherited`: it comes and goes with its parent table's.
    """

    key: Key
    shown: str
    source: Any
    state: Any
    create: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    made_with: Key | None = None
    gone_with: Key | None = None
    needs: frozenset[Key] = frozenset()
    loses: str = ""
    slots: tuple[Key, ...] = ()
    inherited: bool = False

    @property
    def kind(self) -> str:
        return self.key[0]


@dataclass(frozen=True)
class SchemaState:
    """A schema at one moment. `unread`: kind and name of what no statement is written for, with its definition.

    `schemas`: the others of the database.
    """

    things: Mapping[Key, Thing]
    unread: Mapping[tuple[str, str], str]
    schemas: frozenset[str]


def read_schema(conn: Connection, schema: str, leave_out: Collection[str] = ()) -> SchemaState:
    """Read a schema, on a connection in autocommit mode, without the tables called `leave_out`."""
    with hold_schema(conn, schema):
        catalog = read_catalog(conn, schema)
        needs: defaultdict[Key, set[Key]] = defaultdict(set)
        with conn.transaction():
            conn.execute("SELECT set_config('search_path', quote_ident(%s), true)", (schema,))
            for thing, needed in conn.execute(_SQL["needs"], {"schema": schema}):
                needs[tuple(thing)].add(tuple(needed))
            unread = {
                (kind, name): definition for kind, name, definition in conn.execute(_SQL["unread"], {"schema": schema})
            }
        schemas = frozenset(name for (name,) in conn.execute(_SQL["other_schemas"], {"schema": schema}))
        things = {thing.key: thing for thing in _Lister(catalog, read_reserved_words(conn)).list_things()}
    things = _drop_tables(things, leave_out)
    for key, thing in things.items():
        wanted = needs[key] | thing.needs
        if thing.kind != "sequence":  # which needs no column to belong to
            wanted |= {other for other in (thing.made_with, thing.gone_with) if other}
        things[key] = replace(thing, needs=frozenset(other for other in wanted if other in things and other != key))
    return SchemaState(things, unread, schemas)


def _drop_tables(things: dict[Key, Thing], names: Collection[str]) -> dict[Key, Thing]:
    """The things without those tables and what goes with them."""
    gone = {("table", name) for name in names}
    rest, before = things, -1
    while len(rest) != before:
        before = len(rest)
        rest = {key: thing for key, thing in rest.items() if key not in gone and thing.gone_with not in gone}
        gone = things.keys() - rest.keys()
    return rest


class _Lister:
    def __init__(self, catalog: Catalog, reserved: frozenset[str]) -> None:
        self._catalog = catalog
        self._writer = SchemaWriter(catalog, reserved)
        self._name = self._writer.quote_name
        self._routines = {routine.identity: ("routine", routine.signature) for routine in catalog.routines}
        self._identities = {(s.owner_table, s.owner_column): s for s in catalog.sequences.values() if s.identity}

    def list_things(self) -> Iterator[Thing]:
        yield from self._extensions()
        yield from self._types()
        yield from self._sequences()
        yield from self._list_routines()
        for relation in self._catalog.relations.values():
            yield from self._relation(relation)
        for constraint in self._catalog.constraints:
            yield self._constraint(constraint)
        yield from self._indexes()
        yield from self._triggers_and_policies()
        yield from self._grants()
        for comment in self._catalog.comments:
            key = ("comment", comment.words, comment.name, comment.relation or "")
            text = format_comment(comment)
            drop = format_comment(replace(comment, text="")).removesuffix("''") + "NULL"
            yield Thing(
                key, text.partition(" IS ")[0], comment, comment.text, (text,), (drop,), gone_with=comment.thing
            )

    def _extensions(self) -> Iterator[Thing]:
        for name, home in self._catalog.extensions:
            shown, create = self._name(name), []
            if home not in ("public", "pg_catalog", self._catalog.schema):
                create.append(f"CREATE SCHEMA IF NOT EXISTS {self._name(home)}")
            create.append(f"CREATE EXTENSION IF NOT EXISTS {shown} WITH SCHEMA {self._name(home)}")
            yield Thing(("extension", name), shown, home, home, tuple(create), (f"DROP EXTENSION {shown}",))

    def _types(self) -> Iterator[Thing]:
        for type_ in self._catalog.types.values():
            shown = self._name(type_.name)
            yield Thing(
                ("type", type_.name),
                shown,
                type_,
                (type_.kind, type_.labels, type_.definition),
                (self._writer.write_type(type_),),
                (f"DROP {'DOMAIN' if type_.kind == 'd' else 'TYPE'} {shown}",),
                slots=(("type", type_.name),),
            )

    def _sequences(self) -> Iterator[Thing]:
        for sequence in self._catalog.sequences.values():
            if sequence.identity:
                continue
            key, shown = ("sequence", sequence.name), self._name(sequence.name)
            owner = None
            if sequence.owner_table is not None and sequence.owner_column is not None:
                owner = ("column", sequence.owner_table, sequence.owner_column)
                column = f"{self._name(sequence.owner_table)}.{self._name(sequence.owner_column)}"
                yield Thing(
                    ("owner", sequence.name), shown, sequence, owner, (f"ALTER SEQUENCE {shown} OWNED BY {column}",),
                    (f"ALTER SEQUENCE {shown} OWNED BY NONE",), gone_with=key, needs=frozenset((owner,)),
                )  # fmt: skip
            state = (sequence.type, sequence.start, sequence.increment, sequence.minimum, sequence.maximum,
                     sequence.cache, sequence.cycle)  # fmt: skip
            yield Thing(
                key, shown, sequence, state, (self._writer.write_sequence(sequence),), (f"DROP SEQUENCE {shown}",),
                gone_with=owner, loses=f"the position of sequence {shown}", slots=(("relation", sequence.name),),
            )  # fmt: skip

    def _list_routines(self) -> Iterator[Thing]:
        usual = {(grant.kind, grant.name) for grant in self._catalog.grants if grant.usual}
        for routine in self._catalog.routines:
            key, kind = ("routine", routine.signature), _name_kind(routine)
            yield Thing(
                key, routine.identity, routine, (routine.kind, routine.definition), (routine.definition.rstrip(),),
                (f"DROP {'AGGREGATE' if routine.kind == 'a' else kind} {routine.identity}",),
            )  # fmt: skip
            if (kind, routine.identity) not in usual:
                on = f"ON {kind} {routine.identity}"
                yield Thing(
                    ("revoked", routine.signature), routine.identity, None, None, (f"REVOKE ALL {on} FROM PUBLIC",),
                    (f"GRANT EXECUTE {on} TO PUBLIC",), gone_with=key,
                )  # fmt: skip

    def _relation(self, relation: Relation) -> Iterator[Thing]:
        shown = self._name(relation.name)
        slots = (("relation", relation.name), ("type", relation.name))
        if relation.is_table:
            key = ("table", relation.name)
            state = (relation.kind, relation.unlogged, relation.options, relation.partition_key,
                     relation.row_security, relation.force_row_security)  # fmt: skip
            create, drop = self._writer.write_table(relation), f"DROP TABLE {shown}"
            loses = f"table {shown} and its rows"
        else:
            key = ("view", relation.name)
            columns = tuple((column.name, column.type, column.collation) for column in relation.columns.values())
            state = (relation.kind, relation.options, relation.query, columns)
            create = (self._writer.write_view(relation),)
            drop = f"DROP {'MATERIALIZED ' if relation.kind == 'm' else ''}VIEW {shown}"
            loses = ""
        yield Thing(key, shown, relation, state, create, (drop,), loses=loses, slots=slots)
        for column in relation.columns.values():
            yield from self._column(relation, key, column)
        for parent in relation.parents:
            yield self._parent(relation, parent)

    def _column(self, relation: Relation, holder: Key, column: Column) -> Iterator[Thing]:
        key, table = ("column", relation.name, column.name), self._name(relation.name)
        shown = self._name(column.name)
        if relation.is_table:
            sequence = self._identities.get((relation.name, column.name))
            if sequence is None:
                column = replace(column, identity="")  # a partition's comes and goes with its parent's
            counting = format_sequence_options(sequence) if sequence else None
            state = (column.type, column.collation, column.not_null, column.identity, counting, column.generated,
                     column.expression if column.generated else None)  # fmt: skip
            create = f"ALTER TABLE {table} ADD COLUMN {self._writer.write_column(relation.name, column)}"
            drop = f"ALTER TABLE {table} DROP COLUMN {shown}"
            loses = "" if column.generated else f"column {table}.{shown} and its values"
            source = (column, sequence, f"ALTER TABLE {table} ALTER COLUMN {shown}")
            yield Thing(
                key, f"{table}.{shown}", source, state, (create,), (drop,), holder, holder, loses=loses,
                inherited=not column.is_local,
            )  # fmt: skip
        else:
            yield Thing(key, f"{table}.{shown}", (column, None, ""), None, made_with=holder, gone_with=holder)
        if column.expression is not None and not column.generated:
            # Each table has its own default, partitions too.
            only = "ONLY " if relation.is_table else ""
            alter = f"ALTER {'TABLE' if relation.is_table else 'VIEW'} {only}{table} ALTER COLUMN {shown}"
            parents = [self._catalog.relations.get(unquote_name(parent)) for parent in relation.parents]
            above = {
                parent.columns[column.name].expression for parent in parents if parent and column.name in parent.columns
            }
            comes_along = relation.is_table and (column.is_local or column.expression in above)
            yield Thing(
                ("default", relation.name, column.name), f"{table}.{shown}", column, column.expression,
                (f"{alter} SET DEFAULT {column.expression}",), (f"{alter} DROP DEFAULT",),
                made_with=key if comes_along else None, gone_with=key, needs=frozenset((key,)),
            )  # fmt: skip

    def _parent(self, child: Relation, parent: str) -> Thing:
        above, shown = unquote_name(parent), self._name(child.name)
        if child.partition_bound is not None:
            create = f"ALTER TABLE {parent} ATTACH PARTITION {shown} {child.partition_bound}"
            drop = f"ALTER TABLE {parent} DETACH PARTITION {shown}"
        else:
            create, drop = f"ALTER TABLE {shown} INHERIT {parent}", f"ALTER TABLE {shown} NO INHERIT {parent}"
        key = ("table", child.name)
        state = child.partition_bound
        return Thing(
            ("parent", child.name, above), f"{shown} of {parent}", child, state, (create,), (drop,), made_with=key,
            gone_with=key, needs=frozenset({("table", above)}),
        )  # fmt: skip

    def _constraint(self, constraint: Constraint) -> Thing:
        key, holder = ("constraint", constraint.table, constraint.name), ("table", constraint.table)
        table, shown = self._name(constraint.table), self._name(constraint.name)
        slots: list[Key] = [key]
        if constraint.kind in "pux":
            slots.append(("relation", constraint.name))
        if constraint.kind == "p":
            slots.append(("primary key", constraint.table))
        return Thing(
            key, f"{shown} on {table}", constraint, constraint.definition,
            (f"ALTER TABLE {table} ADD CONSTRAINT {shown} {constraint.definition}",),
            (f"ALTER TABLE {table} DROP CONSTRAINT {shown}",),
            made_with=None if constraint.kind == "f" and not constraint.inherited else holder, gone_with=holder,
            slots=tuple(slots), inherited=constraint.inherited,
            needs=frozenset({("table", unquote_name(constraint.referenced))} if constraint.referenced else ()),
        )  # fmt: skip

    def _indexes(self) -> Iterator[Thing]:
        for index in self._catalog.indexes:
            shown = self._name(index.name)
            yield Thing(
                ("index", index.name), shown, index, (index.definition, index.valid), (index.definition,),
                (f"DROP INDEX {shown}",), made_with=("table", index.table) if index.inherited else None,
                gone_with=self._holder(index.table), slots=(("relation", index.name),), inherited=index.inherited,
            )  # fmt: skip

    def _triggers_and_policies(self) -> Iterator[Thing]:
        for trigger in self._catalog.triggers:
            table, shown = self._name(trigger.table), self._name(trigger.name)
            switch = f"ALTER TABLE {table} {_ENABLED[trigger.enabled]} TRIGGER {shown}"
            create = (trigger.definition,) if trigger.enabled == "O" else (trigger.definition, switch)
            yield Thing(
                ("trigger", trigger.table, trigger.name), f"{shown} on {table}", (trigger.definition, switch),
                (trigger.definition, trigger.enabled), create, (f"DROP TRIGGER {shown} ON {table}",),
                gone_with=self._holder(trigger.table),
            )  # fmt: skip
        for policy in self._catalog.policies:
            table, shown = self._name(policy.table), self._name(policy.name)
            yield Thing(
                ("policy", policy.table, policy.name), f"{shown} on {table}", policy, policy.definition,
                (f"CREATE POLICY {shown} ON {table} {policy.definition}",), (f"DROP POLICY {shown} ON {table}",),
                gone_with=("table", policy.table),
            )  # fmt: skip

    def _grants(self) -> Iterator[Thing]:
        rights: dict[tuple[str, str, str], list[Grant]] = {}
        for grant in self._catalog.grants:
            if not grant.usual:
                rights.setdefault((grant.kind, grant.name, grant.grantee), []).append(grant)
        for (kind, name, grantee), grants in rights.items():
            needs = {
                ("column", unquote_name(name), unquote_name(grant.column))
                for grant in grants
                if grant.column is not None
            }
            yield Thing(
                ("grant", kind, name, grantee), f"{kind} {name} for {grantee}", (kind, name, grantee),
                frozenset((format_privilege(grant), grant.grantable) for grant in grants),
                tuple(write_grants(kind, name, grantee, {(format_privilege(g), g.grantable) for g in grants})),
                (write_revoke(kind, name, grantee, {format_privilege(grant) for grant in grants}),),
                gone_with=self._find_granted(kind, name), needs=frozenset(needs),
            )  # fmt: skip

    def _find_granted(self, kind: str, name: str) -> Key | None:
        if kind in ("FUNCTION", "PROCEDURE"):
            return self._routines[name]
        if kind == "SEQUENCE":
            sequence = self._catalog.sequences[unquote_name(name)]
            if sequence.identity and sequence.owner_table and sequence.owner_column:
                return ("column", sequence.owner_table, sequence.owner_column)
            return ("sequence", sequence.name)
        return self._holder(unquote_name(name)) if kind == "TABLE" else None

    def _holder(self, relation: str) -> Key:
        return ("table" if self._catalog.relations[relation].is_table else "view", relation)


def write_grants(kind: str, name: str, grantee: str, rights: Collection[tuple[str, bool]]) -> Iterator[str]:
    """GRANT statements; a right is a privilege and whether it may be passed on."""
    for passed_on in (False, True):
        if privileges := sorted(privilege for privilege, grantable in rights if grantable is passed_on):
            option = " WITH GRANT OPTION" if passed_on else ""
            yield f"GRANT {', '.join(privileges)} ON {kind} {name} TO {grantee}{option}"


def write_revoke(kind: str, name: str, grantee: str, privileges: Collection[str]) -> str:
    return f"REVOKE {', '.join(sorted(privileges))} ON {kind} {name} FROM {grantee}"


def _name_kind(routine: Routine) -> str:
    return "PROCEDURE" if routine.kind == "p" else "FUNCTION"
