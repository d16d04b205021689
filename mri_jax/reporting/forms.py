"""A table as Markdown and as LaTeX."""

import unicodedata
from collections.abc import Sequence

from mri_jax.reporting.table import SIMULATED, Cell, Table

LINES = 36
"""Lines of a LaTeX table that fit on a page below a long caption."""


def markdown(table: Table, simulated: bool) -> str:
    """Markdown; an interval stands behind its number."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_markdown_cell(c) for c in cells) + " |"

    rows = [line([cell.text for cell in row]) for row in table.rows]
    rule = "|" + "---|" * len(table.header)
    head = f"**{_title(table, simulated)}**"
    return "\n".join([head, "", line(table.header), rule, *rows, "", table.note, ""])


def _markdown_cell(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return escaped.replace("\n", " ")


def _title(table: Table, simulated: bool) -> str:
    return f"{table.title} ({SIMULATED})" if simulated else table.title


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "−": "$-$", "–": "--",
    "η": r"$\eta$", "²": r"$^2$", "×": r"$\times$", "∞": r"$\infty$", "\n": " ",
}  # fmt: skip


def latex_escape(value: str) -> str:
    """Text for LaTeX; a character beyond Latin script becomes its plain form, or ``?``."""
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
    """A ``table`` for each test cohort; intervals stand in a line of their own.

    Wide ones are scaled to the text's width, which needs ``\\usepackage{graphicx}``.
    """
    if not table.rows:
        return ""
    apart = table.header[0] == "Test cohort"
    cohorts = dict.fromkeys(row[0].text for row in table.rows) if apart else {"": None}
    parts = []
    for place, cohort in enumerate(cohorts):
        rows = [row for row in table.rows if not apart or row[0].text == cohort]
        title = _title(table, simulated) + (f", tested on {cohort}." if apart else ".")
        caption = f"{title} {table.note}" if place == 0 else title
        for number, chunk in enumerate(_pages([row[apart:] for row in rows])):
            again = f"{title} Continued." if number else caption
            parts.append(_latex_table(table.header[apart:], chunk, again))
    return "\n".join(parts)


def _pages(rows: Sequence[tuple[Cell, ...]]) -> list[list[tuple[Cell, ...]]]:
    """Rows in parts of at most `LINES` lines: a float must fit on one page."""
    parts: list[list[tuple[Cell, ...]]] = [[]]
    used = 0
    for row in rows:
        lines = max(cell.text.count("\n") + 1 for cell in row)
        if parts[-1] and used + lines > LINES:
            parts.append([])
            used = 0
        parts[-1].append(row)
        used += lines
    return parts


def _latex_table(header: Sequence[str], rows: Sequence[tuple[Cell, ...]], caption: str) -> str:
    # A column that says the same in every row stands in the caption instead.
    texts = [{row[column].text for row in rows} for column in range(len(header))]
    kept = [column for column, found in enumerate(texts) if len(found) > 1 or len(rows) == 1]
    for column in sorted(set(range(len(header))) - set(kept)):
        if texts[column] != {""}:
            caption += f" {header[column]}: {texts[column].pop()}."
    header = [header[column] for column in kept]
    rows = [tuple(row[column] for column in kept) for row in rows]
    wide = len(header) > 5
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize",
        rf"\caption{{{latex_escape(caption)}}}",
        r"\resizebox{\textwidth}{!}{%" if wide else "%",
        rf"\begin{{tabular}}{{{'l' * len(header)}}}",
        r"\hline",
        " & ".join(latex_escape(name) for name in header) + r" \\",
        r"\hline",
    ]
    for row in rows:
        split = [cell.text.split("\n") for cell in row]
        for index in range(max(len(parts) for parts in split)):
            shown = [parts[index] if index < len(parts) else "" for parts in split]
            lines.append(" & ".join(_latex_cell(c) for c in shown) + r" \\")
    end = r"\end{tabular}}" if wide else r"\end{tabular}"
    return "\n".join([*lines, r"\hline", end, r"\end{table}", ""])


def _latex_cell(value: str) -> str:
    escaped = latex_escape(value)
    # A bracket that opens a cell would be read as an option of the line break before it.
    return "{}" + escaped if escaped.startswith(("[", "*")) else escaped
