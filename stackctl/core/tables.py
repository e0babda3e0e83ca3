"""How a table is set: within the width of a window, or for a script."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from stackctl.core.folding import find_measure, fold_cell, fold_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GAP = "   "
FOLDED_WIDTH = 16  # cells: a column of texts is not folded to less


@dataclass(frozen=True)
class Table:
    """Headings and cells, ready to be shown. Columns named in `folds` hold texts, the others what is to be copied."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    folds: frozenset[str] = frozenset()

    def without(self, dropped: Sequence[str]) -> Table:
        kept = [place for place, name in enumerate(self.columns) if name not in dropped]
        return Table(
            tuple(self.columns[place] for place in kept),
            tuple(tuple(row[place] for place in kept) for row in self.rows),
            self.right,
            self.folds,
        )

    def measure(self) -> list[int]:
        """The width of each column, in cells of a terminal."""
        measure = find_measure(chain(self.columns, *self.rows))
        return [max(map(measure, cells)) for cells in zip(self.columns, *self.rows, strict=True)]

    def split(self, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Table]]:
        """Parts of rows that follow each other and have the same in these columns: that, and the table without them."""
        places = [self.columns.index(name) for name in names]
        begin = 0
        for end in range(1, len(self.rows) + 1):
            key = tuple(self.rows[begin][place] for place in places)
            if end == len(self.rows) or tuple(self.rows[end][place] for place in places) != key:
                yield key, Table(self.columns, self.rows[begin:end], self.right, self.folds).without(names)
                begin = end


def fit_table(table: Table, width: int, spare: Sequence[str]) -> tuple[list[str], list[int]] | None:
    """The columns to leave out, taken from `spare` in its order, and the widths of the others; None if nothing fits."""
    dropped: list[str] = []
    for name in (None, *spare):
        if name is not None:
            dropped.append(name)
        left = table.without(dropped)
        if not left.columns:
            break
        natural = left.measure()
        headings = Table(left.columns, ()).measure()
        least = [
            max(min(cells, FOLDED_WIDTH), heading) if name in table.folds else cells
            for name, cells, heading in zip(left.columns, natural, headings, strict=True)
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
    measure = find_measure(chain(table.columns, *table.rows))

    def line(cells: Sequence[str]) -> str:
        padded: list[str] = []
        for name, cell, width in zip(table.columns, cells, widths, strict=True):
            blanks = " " * (width - measure(cell))
            padded.append(blanks + cell if name in table.right else cell + blanks)
        return GAP.join(padded).rstrip()

    lines = [line(table.columns), rule * (sum(widths) + len(GAP) * (len(widths) - 1))]
    for row in table.rows:
        folded = [fold_cell(cell, width, measure) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, folded))):
            lines.append(line([parts[number] if number < len(parts) else "" for parts in folded]))
    return lines


def to_records(table: Table, window: int) -> list[str]:
    """A line for each cell, for windows that no row fits in; texts are folded, a long id stands below its name."""
    measure = find_measure(chain(table.columns, *table.rows))
    width = max(map(measure, table.columns), default=0)
    lines: list[str] = []
    for row in table.rows:
        lines += [""] if lines else []
        for name, cell in zip(table.columns, row, strict=True):
            line = f"{name}{' ' * (width - measure(name))}  {cell}"
            if name in table.folds:
                lines += fold_sentence(line, window, width + 2)
            elif measure(line) <= window:
                lines.append(line)
            else:
                lines += [name, f"  {cell}" if measure(cell) + 2 <= window else cell]
    return lines


def to_tab_separated(table: Table) -> list[str]:
    """Headings and rows for `cut` and `awk -F '\\t'`; cells hold no tabs."""
    return ["\t".join(cells) for cells in (table.columns, *table.rows)]
