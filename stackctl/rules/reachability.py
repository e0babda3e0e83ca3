"""Whom a rule can match at all, found without a user: conditions never true, always true, or decided before.

A condition is taken apart into atoms: comparisons and calls between `&&`, `||`, `!` and `? :`. Texts are tried with the
constants that the rules name and with one value that no rule names, scores with every number; an atom that can't be
known so may be either. This allows more users than there are, never fewer: what is claimed here holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias
from typing import Literal as OneOf

from stackctl.rules.cel import types
from stackctl.rules.cel.evaluate import can_compile, compile_node, knows
from stackctl.rules.cel.nodes import (
    Binary,
    Call,
    Conditional,
    Index,
    ListLiteral,
    Literal,
    Logical,
    Name,
    Node,
    Unary,
    children,
    walk,
)
from stackctl.rules.cel.parse import ConditionSyntaxError, parse
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.model import AUTH_METHODS, MAX_RISK, RISKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stackctl.rules.model import Rule, RuleSet

# Formulas tried in one search, and for a whole set of rules; atoms tried on users; choices, which nest. Beyond that
# nothing is claimed.
MAX_SEARCH_WORK, MAX_TOTAL_WORK = 20_000, 300_000
MAX_TRIED = 250_000
MAX_CHOICES = 400

Kind = OneOf["never-true", "always-true", "unreachable"]
Truth = OneOf["true", "false", "error"]
Atom: TypeAlias = str  # its text


@dataclass(frozen=True)
class ReachabilityFinding:
    """`behind`: the rules that decide, before this one, about everyone whom it matches."""

    rule: Rule
    kind: Kind
    preceding: tuple[str, ...] = ()


def check_reachability(rules: RuleSet) -> Iterator[ReachabilityFinding]:
    """About the rules whose conditions are right in themselves, in order of evaluation."""
    read = [(rule, tree) for rule in rules.ordered if (tree := _parse_sound(rule)) is not None]
    world = _PossibleUsers([(rule.condition or "", tree) for rule, tree in read])
    deciding: list[tuple[Rule, _Formula]] = []
    for rule, tree in read:
        condition = _to_formula(rule.condition or "", tree)
        kind = _classify_alone(world, condition)
        if kind is not None:
            yield ReachabilityFinding(rule, kind)
        if not rule.enabled:
            continue
        if kind != "never-true" and world.can_exist(condition, ()) is True:
            behind = _find_preceding(world, condition, deciding)
            if behind:
                yield ReachabilityFinding(rule, "unreachable", tuple(one.id for one, _ in behind))
        if rule.action.type in ("allow", "reject"):
            deciding.append((rule, condition))


def can_fail(node: Node) -> bool:
    """Whether evaluating the node can end without a value, for a condition without findings of the type check."""
    return any(
        isinstance(part, Index) or not knows(part)
        or (isinstance(part, Binary) and part.operator in "+-*/%")
        or (isinstance(part, Unary) and part.operator == "-" and not isinstance(part.of, Literal))
        or (isinstance(part, Call) and part.name == "matches" and not isinstance(part.arguments[0], Literal))
        for part in walk(node)
    )  # fmt: skip


def _parse_sound(rule: Rule) -> Node | None:
    condition = rule.condition or ""
    if not condition.strip():
        return None
    if any(problem.severity == "error" for problem in types.check_types(condition, rule.lists)):
        return None
    try:
        return parse(condition)
    except ConditionSyntaxError:
        return None


def _classify_alone(world: _PossibleUsers, condition: _Formula) -> Kind | None:
    if world.can_exist(condition, ()) is False:
        return "never-true"
    return "always-true" if world.can_exist(_TRUE, (condition,)) is False else None


def _find_preceding(
    world: _PossibleUsers, condition: _Formula, deciding: Sequence[tuple[Rule, _Formula]]
) -> list[tuple[Rule, _Formula]]:
    """The earlier rules that leave nothing for this one, as few as will do; none where something is left."""
    needed = list(deciding)
    if not needed or world.can_exist(condition, [one for _, one in needed]) is not False:
        return []
    for one in deciding:
        fewer = [other for other in needed if other is not one]
        if world.can_exist(condition, [formula for _, formula in fewer]) is False:
            needed = fewer
    return needed


@dataclass(frozen=True)
class _Leaf:
    atom: Atom


@dataclass(frozen=True)
class _Connective:
    """`and`, `or`, `not`, `if` (three parts), or a constant."""

    operator: OneOf["&&", "||", "!", "?", "true", "false"]
    parts: tuple[_Formula, ...] = ()


_Formula: TypeAlias = _Leaf | _Connective
_TRUE = _Connective("true")


def _to_formula(text: str, node: Node) -> _Formula:
    match node:
        case Literal(value=bool() as value):
            return _Connective("true" if value else "false")
        case Logical(operator=sign, parts=parts):
            return _Connective("&&" if sign == "&&" else "||", tuple(_to_formula(text, part) for part in parts))
        case Unary(operator="!", of=of):
            return _Connective("!", (_to_formula(text, of),))
        case Conditional(when=when, then=then, otherwise=otherwise):
            return _Connective("?", tuple(_to_formula(text, part) for part in (when, then, otherwise)))
        case _:
            return _Leaf(text[node.span.start : node.span.end])


def _find_atoms(text: str, node: Node) -> Iterator[tuple[Atom, Node]]:
    match node:
        case Literal(value=bool()):
            return
        case Logical() | Conditional() | Unary(operator="!"):
            for child in children(node):
                yield from _find_atoms(text, child)
        case _:
            yield text[node.span.start : node.span.end], node


def _evaluate_formula(formula: _Formula, values: Mapping[Atom, Truth]) -> Truth | None:
    """The formula's value; None while it depends on atoms that have none yet."""
    if isinstance(formula, _Leaf):
        return values.get(formula.atom)
    match formula.operator:
        case "true" | "false":
            return formula.operator
        case "!":
            found = _evaluate_formula(formula.parts[0], values)
            return {"true": "false", "false": "true"}.get(found or "", found)  # type: ignore[return-value]
        case "?":
            when = _evaluate_formula(formula.parts[0], values)
            if when in ("true", "false"):
                return _evaluate_formula(formula.parts[1 if when == "true" else 2], values)
            return when
        case sign:
            ends: Truth = "false" if sign == "&&" else "true"
            parts = {_evaluate_formula(part, values) for part in formula.parts}
            if ends in parts:
                return ends
            if None in parts:
                return None
            return "error" if "error" in parts else ("true" if sign == "&&" else "false")


class _PossibleUsers:
    """The users there can be, as choices: each gives some atoms their values, independent of the other choices."""

    def __init__(self, conditions: Sequence[tuple[str, Node]]) -> None:
        self._work = MAX_TOTAL_WORK
        atoms = {atom: node for text, tree in conditions for atom, node in _find_atoms(text, tree)}
        constants = [found for _, tree in conditions for found in types.find_constants(tree)]
        compiled = {atom: _Atom(node) for atom, node in atoms.items()}
        constant = {atom: one for atom, one in compiled.items() if not one.paths}
        self._choices: list[list[dict[Atom, Truth]]] = [[_evaluate_atoms(constant, _User({}))]]
        free = {atom: node for atom, node in atoms.items() if atom not in self._choices[0][0]}
        for group in _group_fields(constants):
            own = {atom: one for atom, one in compiled.items() if one.paths and one.paths <= group.paths}
            if len(own) * len(group.users) > MAX_TRIED:
                continue
            vectors = [dict(one) for one in {tuple(_evaluate_atoms(own, user).items()) for user in group.users}]
            # What one of the users leaves open is open for the search as a choice of its own.
            self._choices.append(vectors)
            for atom in own:
                if all(atom in vector for vector in vectors):
                    free.pop(atom, None)
        for atom, node in free.items():
            values: list[Truth] = ["true", "false", "error"] if can_fail(node) else ["true", "false"]
            self._choices.append([{atom: value} for value in values])
        self._atoms = [{atom for vector in choice for atom in vector} for choice in self._choices]
        self._places: dict[Atom, list[int]] = {}
        for place, own in enumerate(self._atoms):
            for atom in own:
                self._places.setdefault(atom, []).append(place)

    def can_exist(self, matching: _Formula, not_matching: Sequence[_Formula]) -> bool | None:
        """Whether a user can be for whom `matching` is true and none of `not_matching` is; None: too many to try."""
        first = set(_find_leaves(matching))
        concerned = first.union(*(_find_leaves(one) for one in not_matching))
        choices: list[list[dict[Atom, Truth]]] = []
        for place in sorted({place for atom in concerned for place in self._places.get(atom, ())}):
            own = sorted(concerned & self._atoms[place])
            choices.append(_narrow(self._choices[place], own))
            self._work -= len(own) * len(self._choices[place]) // 200
        if len(choices) > MAX_CHOICES:
            return None
        choices.sort(key=lambda choice: (not any(atom in first for atom in choice[0]), len(choice)))
        stop = max(self._work - MAX_SEARCH_WORK, 0)

        def search(place: int, values: dict[Atom, Truth], not_matching: Sequence[_Formula]) -> bool | None:
            self._work -= 1 + len(not_matching) + len(concerned) // 20
            if self._work <= stop:
                return None
            matches = _evaluate_formula(matching, values)
            if matches in ("false", "error"):
                return False
            left: list[_Formula] = []
            for one in not_matching:
                found = _evaluate_formula(one, values)
                if found == "true":
                    return False
                if found is None:
                    left.append(one)
            if matches == "true" and not left:
                return True
            open_: bool | None = False
            for vector in choices[place]:
                if any(values.get(atom, value) != value for atom, value in vector.items()):
                    continue
                found = search(place + 1, {**vector, **values}, left)
                if found is True:
                    return True
                if found is None:
                    open_ = None
            return open_

        return search(0, {}, not_matching)


def _narrow(choice: Sequence[Mapping[Atom, Truth]], own: Sequence[Atom]) -> list[dict[Atom, Truth]]:
    vectors: list[dict[Atom, Truth]] = [{atom: vector[atom] for atom in own if atom in vector} for vector in choice]
    return list({tuple(vector.items()): vector for vector in vectors}.values())


def _find_leaves(formula: _Formula) -> Iterator[Atom]:
    if isinstance(formula, _Leaf):
        yield formula.atom
    else:
        for part in formula.parts:
            yield from _find_leaves(part)


@dataclass(frozen=True)
class _User:
    """What is known of the fields of a group. `values`: by path; `other`: paths whose value no rule names."""

    values: Mapping[str, Any]
    other: frozenset[str] = frozenset()

    @cached_property
    def fields(self) -> dict[str, Any]:
        """By the names that conditions use."""
        scores = {path.partition(".")[2]: value for path, value in self.values.items() if "." in path}
        return {**self.values, "riskScores": scores}


@dataclass(frozen=True)
class _GroupOfFields:
    paths: frozenset[str]
    users: tuple[_User, ...]


def _group_fields(constants: Sequence[tuple[str, str, object]]) -> Iterator[_GroupOfFields]:
    def texts(path: str) -> list[str]:
        return sorted(
            {value for at, sign, value in constants if at == path and isinstance(value, str) and sign != "matches"}
        )

    yield _GroupOfFields(frozenset({"email", "emailDomain"}), tuple(_email_users(texts("email"), texts("emailDomain"))))
    countries = [one for one in texts("countryCode") if one == "" or (len(one) == 2 and one == one.upper())]
    yield _to_group("countryCode", ["", *countries])
    providers = [_User({"authMethod": "oauth", "oauthProvider": one}) for one in ["", *texts("oauthProvider")]]
    providers.append(_User({"authMethod": "oauth"}, frozenset({"oauthProvider"})))
    others = [_User({"authMethod": one, "oauthProvider": ""}) for one in AUTH_METHODS if one != "oauth"]
    yield _GroupOfFields(frozenset({"authMethod", "oauthProvider"}), tuple(providers + others))
    for risk in RISKS:
        path = f"riskScores.{risk}"
        users = tuple(_User({path: score}) for score in range(MAX_RISK + 1))
        yield _GroupOfFields(frozenset({path}), users)


def _to_group(path: str, values: Sequence[str]) -> _GroupOfFields:
    users = [_User({path: value}) for value in dict.fromkeys(values)]
    return _GroupOfFields(frozenset({path}), (*users, _User({}, frozenset({path}))))


def _email_users(addresses: Sequence[str], domains: Sequence[str]) -> Iterator[_User]:
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
        self.paths = _find_paths(node)
        self._evaluate = compile_node(node) if can_compile(node) else None

    def value(self, user: _User) -> Truth | None:
        if self._evaluate is None:
            return None
        try:
            return "true" if self._evaluate(user.fields) is True else "false"
        except EvaluationError:
            return "error"


def _evaluate_atoms(atoms: Mapping[Atom, _Atom], user: _User) -> dict[Atom, Truth]:
    return {atom: found for atom, one in atoms.items() if (found := _evaluate_for_user(one, user)) is not None}


def _evaluate_for_user(atom: _Atom, user: _User) -> Truth | None:
    """The atom's value for such a user; None where that depends on more than is known."""
    if atom.paths <= user.values.keys():
        return atom.value(user)
    node = atom.node
    match node:
        case Binary(operator=sign, left=left, right=Literal()) | Binary(operator=sign, left=Literal(), right=left) if (
            types.field_path(left) in user.other and sign in ("==", "!=")
        ):
            return "false" if sign == "==" else "true"
        case Binary(operator="in", left=left, right=ListLiteral(items=items)) if types.field_path(left) in user.other:
            return "false" if all(isinstance(item, Literal) for item in items) else None
        case Call(of=Name(name="email"), name="endsWith", arguments=(Literal(value=str() as end),)):
            return _ends_with(end, user.values.get("emailDomain"))
        case _:
            return None


def _ends_with(end: str, domain: str | None) -> Truth | None:
    """Whether an address of this domain ends so."""
    if not domain:
        return None
    tail = f"@{domain}"
    if len(end) <= len(tail):
        return "true" if tail.endswith(end) else "false"
    return None if end.endswith(tail) else "false"


def _find_paths(node: Node) -> frozenset[str]:
    """The fields that a node looks at; `riskScores` as a whole is a path that no group has."""
    if path := types.field_path(node):
        return frozenset({path})
    return frozenset().union(*(_find_paths(child) for child in children(node)))
