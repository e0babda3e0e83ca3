"""How a table is set: within the width of a window, or for a script."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import TYPE_CHECKING

from stackctl.core.folding import find_measure, fold_cell, fold_sentence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

GAP = "   "
FOLDED_WIDTH = 20  # cells: a column of texts is not folded to less


@dataclass(frozen=True)
class Column:
    """A column of a table. What it holds stays in one piece, as ids and names must, unless it `folds`, as texts may.

    `right`: of numbers. `spare`: left out where the window is narrow, 1 before 2; 0 never. `group`: on a terminal a
    heading of the rows that share it. `exact`: parts of documents, in which nothing is masked.
    """

    name: str
    _: KW_ONLY
    right: bool = False
    folds: bool = False
    spare: int = 0
    group: bool = False
    exact: bool = False


def to_columns(columns: Sequence[str | Column]) -> tuple[Column, ...]:
    return tuple(Column(one) if isinstance(one, str) else one for one in columns)


@dataclass(frozen=True)
class Table:
    """Columns and cells, ready to be shown."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def group(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.group)

    def without(self, dropped: Collection[Column]) -> Table:
        kept = [place for place, column in enumerate(self.columns) if column not in dropped]
        return Table(
            tuple(self.columns[place] for place in kept),
            tuple(tuple(row[place] for place in kept) for row in self.rows),
        )

    def measure(self) -> list[int]:
        """The width of each column, in cells of a terminal."""
        measure = find_measure(chain(self.names, *self.rows))
        return [max(map(measure, cells)) for cells in zip(self.names, *self.rows, strict=True)]

    def split(self) -> Iterator[tuple[tuple[str, ...], Table]]:
        """Parts of rows that follow each other and share their group: that, and the table without it."""
        places = [place for place, column in enumerate(self.columns) if column.group]
        begin = 0
        for end in range(1, len(self.rows) + 1):
            key = tuple(self.rows[begin][place] for place in places)
            if end == len(self.rows) or tuple(self.rows[end][place] for place in places) != key:
                yield key, Table(self.columns, self.rows[begin:end]).without(self.group)
                begin = end


def fit_table(table: Table, width: int) -> tuple[list[Column], list[int]] | None:
    """The columns to leave out, the least important first, and the widths of the others; None if nothing fits."""
    dropped: list[Column] = []
    for column in (None, *sorted((one for one in table.columns if one.spare), key=lambda one: one.spare)):
        if column is not None:
            dropped.append(column)
        left = table.without(dropped)
        if not left.columns:
            break
        natural = left.measure()
        headings = Table(left.columns, ()).measure()
        least = [
            max(min(cells, FOLDED_WIDTH), heading) if one.folds else cells
            for one, cells, heading in zip(left.columns, natural, headings, strict=True)
        ]
        room = width - sum(least) - len(GAP) * (len(least) - 1)
        if room < 0:
            continue
        for place, cells in enumerate(natural):
            more = min(cells - least[place], room)
            least[place] += more
            room -= more
        return dropped, least
    return None


def to_lines(table: Table, widths: Sequence[int], rule: str) -> list[str]:
    """The line of headings, the rule below, and the others, of which a row takes several where a text is folded."""
    measure = find_measure(chain(table.names, *table.rows))

    def line(cells: Sequence[str]) -> str:
        padded: list[str] = []
        for column, cell, width in zip(table.columns, cells, widths, strict=True):
            blanks = " " * (width - measure(cell))
            padded.append(blanks + cell if column.right else cell + blanks)
        return GAP.join(padded).rstrip()

    lines = [line(table.names), rule * (sum(widths) + len(GAP) * (len(widths) - 1))]
    for row in table.rows:
        folded = [fold_cell(cell, width, measure) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, folded))):
            lines.append(line([parts[number] if number < len(parts) else "" for parts in folded]))
    return lines


def to_records(table: Table, window: int) -> list[str]:
    """A line for each cell, for windows that no row fits in; texts are folded, a long id stands below its name."""
    measure = find_measure(chain(table.names, *table.rows))
    width = max(map(measure, table.names), default=0)
    lines: list[str] = []
    for row in table.rows:
        lines += [""] if lines else []
        for column, cell in zip(table.columns, row, strict=True):
            name = column.name
            line = f"{name}{' ' * (width - measure(name))}  {cell}"
            if column.folds:
                lines += fold_sentence(line, window, width + 2)
            elif measure(line) <= window:
                lines.append(line)
            else:
                lines += [name, f"  {cell}" if measure(cell) + 2 <= window else cell]
    return lines


def to_tab_separated(table: Table) -> list[str]:
    """Headings and rows for `cut` and `awk -F '\\t'`; cells hold no tabs."""
    return ["\t".join(cells) for cells in (table.names, *table.rows)]
