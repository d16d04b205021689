"""The forms of a table: Markdown, LaTeX and CSV; its form in HTML is a macro of the pages."""

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from etils import epath

from mri_jax import files
from mri_jax.filenames import safe_name
from mri_jax.showing.simulated import labelled
from mri_jax.showing.table import Cell, Table, condensed, parted

LINES = 36
"""Lines of a LaTeX table that fit on a page below a long caption."""
_COLUMN = 34
"""Characters of a line of text in a LaTeX table."""

TESTED = "Test cohort"
"""The column by which LaTeX parts a table."""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "−": "$-$", "–": "--",
    "η": r"$\eta$", "²": r"$^2$", "×": r"$\times$", "∞": r"$\infty$", "\n": " ",
}  # fmt: skip


def write(folder: epath.Path, table: Table, simulated: bool) -> None:
    """Writes a table as ``KEY.md``, ``KEY.tex`` and ``KEY.csv``, which say if it is SIMULATED."""
    place = folder / safe_name(table.key, keep="_")
    files.write_markdown(f"{place}.md", markdown(table, simulated))
    files.write_text(f"{place}.tex", latex(table, simulated))
    files.write_text(f"{place}.csv", csv(table, simulated))


def csv(table: Table, simulated: bool) -> str:
    """Returns the tidy data of a table as CSV."""
    return files.csv_text(table.data.assign(simulated=True) if simulated else table.data)


def markdown(table: Table, simulated: bool) -> str:
    """Returns title, grid and note; what is written to a file must go through `write_markdown`."""
    parts = [f"**{labelled(table.title, simulated)}**", grid(table), table.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def grid(table: Table) -> str:
    """Returns a Markdown table whose columns line up in plain text too.

    >>> from mri_jax.showing.table import from_rows
    >>> print(grid(from_rows("k", "Scores", ["run", "AUC"], [["cnn5-w1", "82.1 ± 2.0"]])))
    | run     | AUC        |
    |---------|------------|
    | cnn5-w1 | 82.1 ± 2.0 |
    """
    texts = [table.header, *([cell.whole for cell in row] for row in table.rows)]
    cells = [[_escaped(text) for text in row] for row in texts]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.header))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def latex_escape(value: str) -> str:
    """Returns text for LaTeX; a character beyond Latin script becomes its plain form, or ``?``."""
    shown = []
    for character in value:
        if character in _LATEX:
            shown.append(_LATEX[character])
        elif ord(character) < 0x180 and character.isprintable():
            shown.append(character)
        else:
            plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
            shown.append("".join(_LATEX.get(c, c) for c in plain) or "?")
    return "".join(shown)


def latex(table: Table, simulated: bool) -> str:
    """Returns a LaTeX ``table`` for each test cohort; the lines of a cell stay lines.

    Wide ones are scaled to the text's width, which needs ``\\usepackage{graphicx}``.
    """
    if not table.rows:
        return ""
    parts = []
    for place, (cohort, of_cohort) in enumerate(parted(table, TESTED).items()):
        title = labelled(table.title.removesuffix("."), simulated)
        title += f", tested on {cohort}." if cohort else "."
        for number, rows in enumerate(_pages(of_cohort.rows)):
            part, same = condensed(replace(of_cohort, rows=tuple(rows)))
            note = " Continued." if number else f" {table.note}" if place == 0 else ""
            said = [f" {name}: {text}." for name, text in same]
            parts.append(_float(part, "".join([title, note.rstrip(), *said])))
    return "\n".join(parts)


def _pages(rows: Sequence[tuple[Cell, ...]]) -> list[list[tuple[Cell, ...]]]:
    """Returns rows in parts of at most `LINES` lines: a float must fit on one page."""
    parts: list[list[tuple[Cell, ...]]] = [[]]
    used = 0
    for row in rows:
        lines = max(len(_lines(cell)) for cell in row)
        if parts[-1] and used + lines > LINES:
            parts.append([])
            used = 0
        parts[-1].append(row)
        used += lines
    return parts


def _lines(cell: Cell) -> list[str]:
    """Returns the lines of a cell in a LaTeX table, long ones broken between words."""
    return [
        part for line in cell.whole.split("\n") for part in textwrap.wrap(line, _COLUMN) or [""]
    ]


def _float(table: Table, caption: str) -> str:
    wide = len(table.header) > 5
    body = tabular(table.header, table.rows)
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\footnotesize",
            rf"\caption{{{latex_escape(caption)}}}",
            *([r"\resizebox{\textwidth}{!}{%", body + "}"] if wide else [body]),
            r"\end{table}",
            "",
        ]
    )


def tabular(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Returns the LaTeX ``tabular`` of some rows, which needs no package."""
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(header)}}}",
        r"\hline",
        " & ".join(latex_escape(name) for name in header) + r" \\",
        r"\hline",
    ]
    for row in rows:
        split = [_lines(cell) for cell in row]
        for index in range(max(len(parts) for parts in split)):
            shown = [parts[index] if index < len(parts) else "" for parts in split]
            lines.append(" & ".join(_latex_cell(c) for c in shown) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


def _latex_cell(value: str) -> str:
    escaped = latex_escape(value)
    # A bracket that opens a cell would be read as an option of the line break before it.
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped
