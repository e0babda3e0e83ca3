"""Whom a rule can match at all, found without a user: conditions never true, always true, or decided before.

A condition is taken apart into atoms: comparisons and calls between `&&`, `||`, `!` and `? :`. Texts are tried with the
constants that the rules name and with one value that no rule names, scores with every number; an atom that can't be
known so may be either. This allows more users than there are, never fewer: what is claimed here holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Literal as OneOf

from stackctl.rules.cel import types
from stackctl.rules.cel.evaluate import evaluator, known
from stackctl.rules.cel.parse import (
    Binary,
    Call,
    Choice,
    Field,
    Group,
    Index,
    Items,
    Literal,
    Name,
    Node,
    Unary,
    Unreadable,
    children,
    parse,
    walk,
)
from stackctl.rules.cel.values import NoValue
from stackctl.rules.model import AUTH_METHODS, MOST_RISK, RISKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackctl.rules.model import Rule, RuleSet

# Formulas tried in one search, and for a whole set of rules; beyond that nothing is claimed.
MOST_WORK, ALL_WORK = 20_000, 300_000

Kind = OneOf["never-true", "always-true", "unreachable"]
Truth = OneOf["true", "false", "error"]
Atom: TypeAlias = str  # its text


@dataclass(frozen=True)
class Claim:
    """`behind`: the rules that decide, before this one, about everyone whom it matches."""

    rule: Rule
    kind: Kind
    behind: tuple[str, ...] = ()


def claims(rules: RuleSet) -> Iterator[Claim]:
    """About the rules whose conditions are right in themselves, in order of evaluation."""
    read = [(rule, tree) for rule in rules.ordered if (tree := _sound(rule)) is not None]
    world = _World([(rule.condition or "", tree) for rule, tree in read])
    deciding: list[tuple[Rule, _Formula]] = []
    for rule, tree in read:
        condition = _formula(rule.condition or "", tree)
        kind = _alone(world, condition)
        if kind is not None:
            yield Claim(rule, kind)
        if not rule.enabled:
            continue
        if kind != "never-true" and world.possible(condition, ()) is True:
            behind = _behind(world, condition, deciding)
            if behind:
                yield Claim(rule, "unreachable", tuple(one.id for one, _ in behind))
        if rule.action.type in ("allow", "reject"):
            deciding.append((rule, condition))


def may_fail(node: Node) -> bool:
    """Whether evaluating the node can end without a value, for a condition without findings of the type check."""
    return any(
        isinstance(part, Index) or not known(part)
        or (isinstance(part, Binary) and part.operator in "+-*/%")
        or (isinstance(part, Unary) and part.operator == "-" and not isinstance(part.of, Literal))
        or (isinstance(part, Call) and part.name == "matches" and not isinstance(part.arguments[0], Literal))
        for part in walk(node)
    )  # fmt: skip


def _sound(rule: Rule) -> Node | None:
    condition = rule.condition or ""
    if not condition.strip() or any(problem.severity == "error" for problem in types.check(condition)):
        return None
    try:
        return parse(condition)
    except Unreadable:
        return None


def _alone(world: _World, condition: _Formula) -> Kind | None:
    if world.possible(condition, ()) is False:
        return "never-true"
    return "always-true" if world.possible(_TRUE, (condition,)) is False else None


def _behind(
    world: _World, condition: _Formula, deciding: Sequence[tuple[Rule, _Formula]]
) -> list[tuple[Rule, _Formula]]:
    """The earlier rules that leave nothing for this one, as few as will do; none where something is left."""
    needed = list(deciding)
    if not needed or world.possible(condition, [one for _, one in needed]) is not False:
        return []
    for one in deciding:
        fewer = [other for other in needed if other is not one]
        if world.possible(condition, [formula for _, formula in fewer]) is False:
            needed = fewer
    return needed


@dataclass(frozen=True)
class _Leaf:
    atom: Atom


@dataclass(frozen=True)
class _Join:
    """`and`, `or`, `not`, `if` (three parts), or a constant."""

    operator: OneOf["&&", "||", "!", "?", "true", "false"]
    parts: tuple[_Formula, ...] = ()


_Formula: TypeAlias = _Leaf | _Join
_TRUE = _Join("true")


def _formula(text: str, node: Node) -> _Formula:
    match node:
        case Literal(value=bool() as value):
            return _Join("true" if value else "false")
        case Group(operator=sign, parts=parts):
            return _Join("&&" if sign == "&&" else "||", tuple(_formula(text, part) for part in parts))
        case Unary(operator="!", of=of):
            return _Join("!", (_formula(text, of),))
        case Choice(when=when, then=then, otherwise=otherwise):
            return _Join("?", tuple(_formula(text, part) for part in (when, then, otherwise)))
        case _:
            return _Leaf(text[node.span.start : node.span.end])


def _atoms(text: str, node: Node) -> Iterator[tuple[Atom, Node]]:
    match node:
        case Literal(value=bool()):
            return
        case Group() | Choice() | Unary(operator="!"):
            for child in children(node):
                yield from _atoms(text, child)
        case _:
            yield text[node.span.start : node.span.end], node


def _truth(formula: _Formula, held: Mapping[Atom, Truth]) -> Truth | None:
    """The formula's value; None while it depends on atoms that have none yet."""
    if isinstance(formula, _Leaf):
        return held.get(formula.atom)
    match formula.operator:
        case "true" | "false":
            return formula.operator
        case "!":
            found = _truth(formula.parts[0], held)
            return {"true": "false", "false": "true"}.get(found or "", found)  # type: ignore[return-value]
        case "?":
            when = _truth(formula.parts[0], held)
            if when in ("true", "false"):
                return _truth(formula.parts[1 if when == "true" else 2], held)
            return when
        case sign:
            ends: Truth = "false" if sign == "&&" else "true"
            parts = {_truth(part, held) for part in formula.parts}
            if ends in parts:
                return ends
            if None in parts:
                return None
            return "error" if "error" in parts else ("true" if sign == "&&" else "false")


class _World:
    """The users there can be, as choices: each gives some atoms their values, independent of the other choices."""

    def __init__(self, conditions: Sequence[tuple[str, Node]]) -> None:
        self._work = ALL_WORK
        atoms = {atom: node for text, tree in conditions for atom, node in _atoms(text, tree)}
        constants = [found for _, tree in conditions for found in types.constants(tree)]
        constant = {atom: node for atom, node in atoms.items() if not _paths(node)}
        self._choices: list[list[dict[Atom, Truth]]] = [
            [_vector({atom: _Atom(node) for atom, node in constant.items()}, _User({}))]
        ]
        free = {atom: node for atom, node in atoms.items() if atom not in self._choices[0][0]}
        for group in _groups(constants):
            own = {atom: _Atom(node) for atom, node in atoms.items() if atom not in constant}
            own = {atom: one for atom, one in own.items() if one.paths <= group.paths}
            vectors = {tuple(sorted(_vector(own, user).items())) for user in group.users}
            # What one of the users leaves open is open for the search as a choice of its own.
            self._choices.append([dict(vector) for vector in vectors])
            for atom in own:
                if all(atom in dict(vector) for vector in vectors):
                    free.pop(atom, None)
        for atom, node in free.items():
            values: list[Truth] = ["true", "false", "error"] if may_fail(node) else ["true", "false"]
            self._choices.append([{atom: value} for value in values])

    def possible(self, wanted: _Formula, unwanted: Sequence[_Formula]) -> bool | None:
        """Whether there can be a user for whom `wanted` is true and none of `unwanted` is; None: too many to try."""
        first = set(_leaves(wanted))
        concerned = first.union(*(_leaves(one) for one in unwanted))
        self._work -= sum(map(len, self._choices)) * len(concerned) // 200  # what the next line costs
        choices = [narrow for choice in self._choices if (narrow := _narrowed(choice, concerned))]
        choices.sort(key=lambda choice: (not any(atom in first for atom in choice[0]), len(choice)))
        stop = max(self._work - MOST_WORK, 0)

        def search(place: int, held: dict[Atom, Truth], unwanted: Sequence[_Formula]) -> bool | None:
            self._work -= 1 + len(unwanted)
            if self._work <= stop:
                return None
            is_wanted = _truth(wanted, held)
            if is_wanted in ("false", "error"):
                return False
            left: list[_Formula] = []
            for one in unwanted:
                found = _truth(one, held)
                if found == "true":
                    return False
                if found is None:
                    left.append(one)
            if is_wanted == "true" and not left:
                return True
            open_: bool | None = False
            for vector in choices[place]:
                if any(held.get(atom, value) != value for atom, value in vector.items()):
                    continue
                found = search(place + 1, {**vector, **held}, left)
                if found is True:
                    return True
                if found is None:
                    open_ = None
            return open_

        return search(0, {}, unwanted)


def _narrowed(choice: Sequence[Mapping[Atom, Truth]], concerned: set[Atom]) -> list[dict[Atom, Truth]]:
    vectors: list[dict[Atom, Truth]] = [
        {atom: value for atom, value in vector.items() if atom in concerned} for vector in choice
    ]
    distinct = {tuple(vector.items()): vector for vector in vectors}
    return list(distinct.values()) if any(vectors) else []


def _leaves(formula: _Formula) -> Iterator[Atom]:
    if isinstance(formula, _Leaf):
        yield formula.atom
    else:
        for part in formula.parts:
            yield from _leaves(part)


@dataclass(frozen=True)
class _User:
    """What is known of the fields of a group. `values`: by path; `other`: paths whose value no rule names."""

    values: Mapping[str, Any]
    other: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _GroupOfFields:
    paths: frozenset[str]
    users: tuple[_User, ...]


def _groups(constants: Sequence[tuple[str, str, object]]) -> Iterator[_GroupOfFields]:
    def texts(path: str) -> list[str]:
        return sorted({value for at, _, value in constants if at == path and isinstance(value, str)})

    yield _GroupOfFields(frozenset({"email", "emailDomain"}), tuple(_emails(texts("email"), texts("emailDomain"))))
    countries = [one for one in texts("countryCode") if one == "" or (len(one) == 2 and one == one.upper())]
    yield _group("countryCode", ["", *countries])
    providers = [_User({"authMethod": "oauth", "oauthProvider": one}) for one in ["", *texts("oauthProvider")]]
    providers.append(_User({"authMethod": "oauth"}, frozenset({"oauthProvider"})))
    others = [_User({"authMethod": one, "oauthProvider": ""}) for one in AUTH_METHODS if one != "oauth"]
    yield _GroupOfFields(frozenset({"authMethod", "oauthProvider"}), tuple(providers + others))
    for risk in RISKS:
        path = f"riskScores.{risk}"
        users = tuple(_User({path: score}) for score in range(MOST_RISK + 1))
        yield _GroupOfFields(frozenset({path}), users)


def _group(path: str, values: Sequence[str]) -> _GroupOfFields:
    users = [_User({path: value}) for value in dict.fromkeys(values)]
    return _GroupOfFields(frozenset({path}), (*users, _User({}, frozenset({path}))))


def _emails(addresses: Sequence[str], domains: Sequence[str]) -> Iterator[_User]:
    """Each address that a rule names; each domain, with an address that none names; and neither."""
    for address in addresses:
        if address == address.strip().lower():
            domain = address.rpartition("@")[2] if "@" in address else ""
            yield _User({"email": address, "emailDomain": domain})
    if "" not in addresses:
        yield _User({"email": "", "emailDomain": ""})
    for domain in domains:
        if domain == domain.lower() and "@" not in domain:
            yield _User({"emailDomain": domain}, frozenset({"email"}))
    yield _User({}, frozenset({"email", "emailDomain"}))
    yield _User({"emailDomain": ""}, frozenset({"email"}))


class _Atom:
    """An atom, compiled once for all users."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.paths = _paths(node)
        self._evaluate = evaluator(node) if known(node) else None

    def value(self, values: Mapping[str, Any]) -> Truth | None:
        if self._evaluate is None:
            return None
        fields: dict[str, Any] = {path: value for path, value in values.items() if "." not in path}
        fields["riskScores"] = {path.partition(".")[2]: value for path, value in values.items() if "." in path}
        try:
            return "true" if self._evaluate(fields) is True else "false"
        except NoValue:
            return "error"


def _vector(atoms: Mapping[Atom, _Atom], user: _User) -> dict[Atom, Truth]:
    return {atom: found for atom, one in atoms.items() if (found := _known(one, user)) is not None}


def _known(atom: _Atom, user: _User) -> Truth | None:
    """The atom's value for such a user; None where that depends on more than is known."""
    if atom.paths <= user.values.keys():
        return atom.value(user.values)
    node = atom.node
    match node:
        case Binary(operator=sign, left=left, right=Literal()) | Binary(operator=sign, left=Literal(), right=left) if (
            _path(left) in user.other and sign in ("==", "!=")
        ):
            return "false" if sign == "==" else "true"
        case Binary(operator="in", left=left, right=Items(items=items)) if _path(left) in user.other:
            return "false" if all(isinstance(item, Literal) for item in items) else None
        case Call(of=Name(name="email"), name="endsWith", arguments=(Literal(value=str() as end),)):
            return _ends(end, user.values.get("emailDomain"))
        case _:
            return None


def _ends(end: str, domain: str | None) -> Truth | None:
    """Whether an address of this domain ends so."""
    if not domain:
        return None
    tail = f"@{domain}"
    if len(end) <= len(tail):
        return "true" if tail.endswith(end) else "false"
    return None if end.endswith(tail) else "false"


def _path(node: Node) -> str:
    match node:
        case Name(name=name):
            return name
        case Field(of=Name(name="riskScores"), name=name):
            return f"riskScores.{name}"
        case _:
            return ""


def _paths(node: Node) -> frozenset[str]:
    """The fields that a node looks at; `riskScores` as a whole is a path that no group has."""
    if path := _path(node):
        return frozenset({path})
    return frozenset().union(*(_paths(child) for child in children(node)))
