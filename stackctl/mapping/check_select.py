"""The rules for the SQL inside a mapping file, by sqlglot: no database needed."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokens import Token, TokenType  # pyright: ignore[reportPrivateImportUsage]

from stackctl.mapping.document import suggest_nearest
from stackctl.mapping.sql_text import PARAMETER, find_parameters, quote
from stackctl.postgres.lexer import Unclosed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.mapping.document import Document
    from stackctl.mapping.model import Mapping

_WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.DDL, exp.Drop, exp.Alter, exp.Command, exp.Into)
_WRITE_WORDS = re.compile(
    r"insert|update|delete|merge|truncate|create|drop|alter|grant|revoke|copy|call|do|set|lock|begin|commit|rollback",
    re.IGNORECASE,
)
# Functions with an effect, that wait, or that reach outside; of PostgreSQL's own pg_… only the harmless are let in.
_EFFECTS = re.compile(
    r"nextval|setval|currval|lastval|set_config|dblink\w*|lo_\w+|loread|lowrite|txid_current|query_to_xml\w*|table_to_xml\w*"
    r"|database_to_xml\w*|schema_to_xml\w*|cursor_to_xml\w*|pg_(?!input_is_valid$|typeof$|column_size$)\w+"
)
_CHANGING = re.compile(
    r"random|random_normal|gen_random_uuid|uuidv4|uuidv7|uuid_generate_v\w+|clock_timestamp|timeofday"
)
_SETS = re.compile(
    r"unnest|generate_series|generate_subscripts|jsonb?_(array_elements|each|object_keys)\w*|regexp_split_to_table"
)
_NOT_FUNCTIONS = {TokenType.IN, TokenType.EXISTS, TokenType.VALUES}


def check_select(document: Document, mapping: Mapping) -> None:
    """Add what is wrong with the mapping's SELECT to the document's findings."""
    text = mapping.select
    statement = _parsed(document, text, 0, "select")
    if statement is None:
        return
    _functions(document, text, "select")
    _parameters(document, text)
    write = next(statement.find_all(*_WRITES), None)
    if write is not None:
        document.add("write", "the select must only read", document.inside(_write_offset(text), "select"))
        return
    if not isinstance(statement, exp.Select):
        what = "UNION, INTERSECT and EXCEPT are" if isinstance(statement, exp.SetOperation) else "this is"
        message = f"{what} not a plain SELECT"
        document.add("not-select", message, document.inside(_offset(statement), "select"), "write one SELECT … FROM …")
        return
    _shape(document, statement, text)
    _output(document, statement, mapping)
    _relations(document, statement, mapping)


def check_expression(document: Document, text: str, *path: str) -> None:
    """Add what is wrong with a SQL expression over the source's own columns (`filter`, `depends_on`)."""
    prefix = "SELECT ("
    statement = _parsed(document, f"{prefix}{text}\n)", len(prefix), *path)
    if statement is None:
        return
    _functions(document, text, *path)
    for found in find_parameters(text):
        message = f"no parameter may stand here: :{found.name}"
        document.add("parameter", message, document.inside(found.start, *path))
    parts = {name for name, value in statement.args.items() if value}
    alone = isinstance(statement, exp.Select) and parts <= {"expressions"} and len(statement.expressions) == 1
    if not alone or not isinstance(statement.expressions[0], exp.Paren) or statement.find(exp.Subquery, exp.Exists):
        document.add("expression", "this must be one expression over the source's own columns", document.at(*path))
    elif any(token.comments for token in _tokens(text)) or "--" in _without_strings(text):
        document.add("expression", "no comment may stand in an expression", document.at(*path))
    for column in statement.find_all(exp.Column):
        if column.table:
            at = document.inside(max(_offset(column) - len(prefix), 0), *path)
            document.add("expression", f"write the column {column.name} without an alias", at)


def _tokens(sql: str) -> list[Token]:
    return Postgres().tokenize(sql)


def _without_strings(text: str) -> str:
    return re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"", "", text)


def _parsed(document: Document, text: str, shift: int, *path: str) -> exp.Expr | None:
    try:
        statements = [s for s in sqlglot.parse(text, read="postgres") if s is not None]
        find_parameters(text)
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        offset = _line_offset(text, first.get("line") or 1, first.get("col") or 1) - len(first.get("highlight") or "")
        message = str(first.get("description") or "not understood").rstrip(".")
        document.add("syntax", f"SQL not understood: {message}", document.inside(max(offset - shift, 0), *path))
        return None
    except (TokenError, Unclosed):
        document.add("syntax", "SQL not understood: a string, name or comment does not end", document.at(*path))
        return None
    if not statements:
        document.add("syntax", "there is no SQL here", document.at(*path))
        return None
    if len(statements) > 1:
        listed = _tokens(text)
        second = next(n for n, token in enumerate(listed) if token.token_type == TokenType.SEMICOLON) + 1
        at = document.inside(max(listed[second].start - shift, 0), *path)
        document.add("one-statement", "more than one statement", at, "keep one SELECT")
        return None
    return statements[0]


def _line_offset(text: str, line: int, column: int) -> int:
    return sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column


def _offset(node: exp.Expr) -> int:
    """Where the node begins in the text: the least place of anything in it."""
    places = [found.meta["start"] for found in node.walk() if "start" in found.meta]
    return min(places, default=0)


def _write_offset(text: str) -> int:
    words = (
        t for t in _tokens(text) if _WRITE_WORDS.fullmatch(text[t.start : t.end + 1]) or t.token_type == TokenType.INTO
    )
    return next((token.start for token in words), 0)


def _functions(document: Document, text: str, *path: str) -> None:
    listed = _tokens(text)
    for token, following in pairwise(listed):
        if following.token_type != TokenType.L_PAREN or token.token_type in _NOT_FUNCTIONS:
            continue
        name = token.text.lower()
        at = document.inside(token.start, *path)
        if _EFFECTS.fullmatch(name):
            document.add("side-effect", f"the function {name} is not allowed in a mapping", at)
        elif _CHANGING.fullmatch(name):
            document.add("side-effect", f"{name} gives another value each time it is read", at)
        elif name == "now":
            document.add(
                "clock", "a value of the clock changes without its row being sent again", at, severity="warning"
            )


def _parameters(document: Document, text: str) -> None:
    found = find_parameters(text)
    for parameter in found:
        if parameter.name != PARAMETER:
            document.add(
                "parameter", f"unknown parameter :{parameter.name}", document.inside(parameter.start, "select"),
                f"the only parameter is :{PARAMETER}",
            )  # fmt: skip
    for token in _tokens(text):
        if token.token_type in (TokenType.PARAMETER, TokenType.PLACEHOLDER) and token.text in ("$", "?"):
            message = f"{token.text} is not a parameter here"
            document.add("parameter", message, document.inside(token.start, "select"), f"write :{PARAMETER}")
    if not any(parameter.name == PARAMETER for parameter in found):
        document.add("tenancy", f":{PARAMETER} does not appear: the rows must be of one tenancy", document.at("select"))


def _shape(document: Document, select: exp.Select, text: str) -> None:
    """One row for each source row, and nothing that keeps a key from being looked up by itself."""
    refused = {
        "distinct": "DISTINCT", "group": "GROUP BY", "having": "HAVING", "limit": "LIMIT", "offset": "OFFSET",
        "order": "ORDER BY", "windows": "WINDOW",
    }  # fmt: skip
    for name, words in refused.items():
        if select.args.get(name):
            at = document.inside(_word_offset(text, words), "select")
            document.add("shape", f"{words} at the top level: a mapping yields one row for each source row", at)
    for scope in select.find_all(exp.Select):
        if scope.args.get("locks"):
            document.add(
                "write", "FOR UPDATE and FOR SHARE lock rows", document.inside(_word_offset(text, "FOR"), "select")
            )
        for item in scope.expressions:
            if item.is_star:
                at = document.inside(_offset(item), "select")
                document.add("star", "`*` is not allowed", at, "name the columns, so that a new one changes nothing")
    for item in select.expressions:
        for node in _own(item):
            if isinstance(node, (exp.AggFunc, exp.Window)):
                at = document.inside(_offset(item), "select")
                document.add("shape", "an aggregate or window at the top level: use a sub-select for it", at)
                break
            name = node.name.lower() if isinstance(node, exp.Anonymous) else node.key
            if isinstance(node, (exp.UDTF, exp.Explode)) or (isinstance(node, exp.Func) and _SETS.fullmatch(name)):
                at = document.inside(_offset(item), "select")
                document.add("shape", "a function that yields several rows: one row for each source row", at)
                break


def _own(node: exp.Expr) -> Iterator[exp.Expr]:
    """The node and what is in it, sub-selects left out."""
    if isinstance(node, exp.Query):
        return
    yield node
    for child in node.iter_expressions():
        yield from _own(child)


def _word_offset(text: str, words: str) -> int:
    """Where the first word of `words` stands outside every parenthesis, or anywhere."""
    word, depth, anywhere = words.split()[0].lower(), 0, 0
    for token in _tokens(text):
        if token.token_type == TokenType.L_PAREN:
            depth += 1
        elif token.token_type == TokenType.R_PAREN:
            depth -= 1
        elif text[token.start : token.end + 1].lower().split()[:1] == [word]:
            if depth == 0:
                return token.start
            anywhere = anywhere or token.start
    return anywhere


def _named(identifier: object) -> str:
    """The name PostgreSQL sees: unquoted ones are folded to lower case."""
    if not isinstance(identifier, exp.Identifier):
        return ""
    return identifier.name if identifier.quoted else identifier.name.lower()


def _output(document: Document, select: exp.Select, mapping: Mapping) -> None:
    wanted = {column.name for column in mapping.columns}
    seen: set[str] = set()
    for item in select.expressions:
        if item.is_star:
            continue
        named = item.args.get("alias") if isinstance(item, exp.Alias) else item
        name = _named(named.this if isinstance(named, exp.Column) else named)
        at = document.inside(_offset(named if isinstance(named, exp.Identifier) else item), "select")
        if not name:
            document.add("output-columns", "an output column without a name", at, "add AS name")
        elif name in seen:
            document.add("output-columns", f"the select yields {name} twice", at)
        elif name not in wanted:
            missing = wanted - {i.alias_or_name for i in select.expressions}
            document.add(
                "output-columns",
                f"the select yields {name}, which columns does not list",
                at,
                suggest_nearest(name, missing),
            )
        seen.add(name)
    if any(item.is_star for item in select.expressions):
        return
    for column in mapping.columns:
        if column.name not in seen:
            message = f"the select does not yield {column.name}"
            document.add("output-columns", message, document.at("columns", column.name, key=True))


def _relations(document: Document, select: exp.Select, mapping: Mapping) -> None:
    # The key of the clause differs between releases of sqlglot.
    clause = select.args.get("from_") or select.args.get("from")
    first = clause.this if isinstance(clause, exp.From) else None
    if not isinstance(first, exp.Table) or _named(first.this) != mapping.source or first.args.get("db"):
        at = document.inside(_offset(first) if first is not None else 0, "select")
        document.add("source", f"the first relation of FROM must be the source, {quote(mapping.source)} AS …", at)
        return
    alias = first.args.get("alias")
    name = _named(alias.this) if alias is not None else ""
    if not name:
        at = document.inside(_offset(first), "select")
        document.add(
            "source", "the source needs an alias", at, f"{quote(mapping.source)} AS {mapping.source[0].lower()}"
        )
        return
    if mapping.filter is not None:
        _filtered(document, select, name, mapping.filter)
    if mapping.tenancy is not None:
        name, column = _tenancy_alias(document, select, mapping.tenancy.table), "id"
    else:
        column = "tenancyId"
    for join in select.args.get("joins") or ():
        if join.side in ("RIGHT", "FULL"):
            at = document.inside(_offset(join), "select")
            document.add("shape", f"{join.side} JOIN yields rows without a source row", at, "use LEFT JOIN or JOIN")
    if name and not _bound(select, name, column):
        where = select.args.get("where")
        at = document.inside(_word_offset(mapping.select, "WHERE") if where else 0, "select")
        document.add(
            "tenancy", f"the WHERE must hold {name}.{quote(column)} = :{PARAMETER}, joined by AND to the rest", at
        )
    _unnoticed(document, select, mapping)


def _tenancy_alias(document: Document, select: exp.Select, table: str) -> str:
    for join in select.args.get("joins") or ():
        if isinstance(join.this, exp.Table) and _named(join.this.this) == table and not join.side:
            alias = join.this.args.get("alias")
            return _named(alias.this) if alias is not None else table
    document.add("tenancy", f"{quote(table)} must be joined (JOIN, not LEFT JOIN)", document.at("select"))
    return ""


def _filtered(document: Document, select: exp.Select, alias: str, text: str) -> None:
    """The filter must stand in the WHERE: so it means the same to a whole load, which reads the SELECT only."""
    try:
        wanted = sqlglot.parse_one(text, read="postgres")
    except (ParseError, TokenError):
        return  # said of the filter itself

    def qualify(node: exp.Expr) -> exp.Expr:
        if not isinstance(node, exp.Column):
            return node
        return exp.column(_named(node.this), table=_named(node.args.get("table")) or alias, quoted=True)

    where = select.args.get("where")
    held = {condition.transform(qualify) for condition in _conditions(where.this)} if where is not None else set()
    for condition in (condition.transform(qualify) for condition in _conditions(wanted)):
        if condition not in held:
            document.add(
                "filter",
                "the WHERE of the select must hold the filter, too: a row outside it is in no copy",
                document.at("filter"),
                f"add to the WHERE: AND {condition.sql(dialect='postgres')}",
            )


def _conditions(node: exp.Expr) -> Iterator[exp.Expr]:
    """What is joined by AND."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, exp.Paren):
            waiting.append(node.this)
        elif isinstance(node, exp.And):
            waiting += [node.left, node.right]
        else:
            yield node


def _bound(select: exp.Select, alias: str, column: str) -> bool:
    where = select.args.get("where")
    for node in _conditions(where.this) if where is not None else ():
        if isinstance(node, exp.EQ):
            for one, other in ((node.left, node.right), (node.right, node.left)):
                value = other.this if isinstance(other, exp.Cast) else other
                if (
                    isinstance(one, exp.Column)
                    and _named(one.this) == column
                    and _named(one.args.get("table")) == alias
                    and isinstance(value, exp.Placeholder)
                    and value.name == PARAMETER
                ):
                    return True
    return False


def _unnoticed(document: Document, select: exp.Select, mapping: Mapping) -> None:
    """Warn of a table that is read though its changes send nothing."""
    known = {mapping.source, *(d.table for d in mapping.depends_on)} | {
        _named(c.args["alias"].this) for c in select.ctes
    }
    if mapping.tenancy is not None:
        known.add(mapping.tenancy.table)
    for table in select.find_all(exp.Table):
        name = _named(table.this)
        if name and name not in known:
            known.add(name)
            message = f"{name} is read, but a change of its rows sends nothing"
            document.add(
                "dependency", message, document.inside(_offset(table), "select"), "add it to depends_on", "warning"
            )
