"""CSV and TSV files as cells of text; whatever can be read in two ways is refused with its row.

A row is counted as a spreadsheet counts (the header is row 1).

CSV follows RFC 4180: a quotation mark that opens a cell must close it. TSV has no quoting, as in
BIDS: a quotation mark is text, only a cell that is wrapped in quotation marks as a whole (as R and
Excel write it) loses them.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from etils import epath

from mri_jax import files
from mri_jax.cells import misquoted
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, refuse

MISSING = frozenset(
    {
        "", "na", "n/a", "nan", "-nan", "none", "null", "nil", "missing", "-", "--", ".",
        "-1", "-4", "-1.0", "-4.0", "<na>", "#n/a", "#na", "#null!", "#value!", "#ref!",
        "#name?", "#num!", "#div/0!",
    }
)  # fmt: skip
"""Cells that say "missing", in small letters: the one list of the program."""

WIDE_BYTES = 2**33
"""The largest CSV file of which some columns are read."""
_MARKS = {",": "','", "\t": "tab", ";": "';'", "|": "'|'"}
_OTHER_FILES = {b"PK\x03\x04": "an Excel workbook or a ZIP archive", b"\x1f\x8b": "compressed",
                b"\xd0\xcf\x11\xe0": "an old Excel workbook"}  # fmt: skip
_SAVE = "save it as UTF-8 (Excel: 'CSV UTF-8'; otherwise iconv -t UTF-8)"
# What nobody types; tabs, line ends, vertical tabs and form feeds are white space.
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff]")
_WRAPPED = re.compile(r'^"((?:[^"]|"")*)"$')
DECIMAL_COMMA = re.compile(r"^[+-]?\d+,\d+$")


@dataclass(frozen=True)
class Rows:
    """The rows of a file.

    Attributes:
      path: The file, as the user named it.
      header: Names of the columns, without spaces around them; empty where a column has none.
      cells: The cells of each row, as many as the header has names; without spaces around them.
        Rows without any text are left out.
      numbers: The number of each row.
      ended: Whether the last row ends with a line end; without one the file may be cut.
    """

    path: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]
    ended: bool

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns the columns of some names (by default all that have one) as text, indexed by row.

        Raises:
          TableError: A name occurs twice.
        """
        wanted = [name for name in self.header if name] if names is None else list(names)
        counts = Counter(name.lower() for name in self.header)
        twice = dict.fromkeys(name for name in wanted if counts[name.lower()] > 1)
        refuse(
            Problem(self.path, 1, "", "", f"column {name!r} occurs twice{self._spelt(name)}")
            for name in twice
        )
        places = [self.header.index(name) for name in wanted]
        index = pd.Index(self.numbers, dtype=int)
        columns = {
            name: pd.Series([row[place] for row in self.cells], index=index, dtype=object)
            for name, place in zip(wanted, places, strict=True)
        }
        return pd.DataFrame(columns, index=index)

    def _spelt(self, name: str) -> str:
        spelt = [other for other in self.header if other.lower() == name.lower()]
        return f" ({', '.join(spelt)})" if len(set(spelt)) > 1 else ""


def read(path: epath.PathLike, columns: Sequence[str] = ()) -> Rows:
    """Read a CSV file, or a TSV file if its name ends in ``.tsv``.

    Args:
      path: The file.
      columns: The only columns that are looked at, in any case. A CSV file too large for memory
        (`files.TABLE_BYTES`) is read where they are given.

    Raises:
      UserError: There is no such file, it is not UTF-8 text, or has another delimiter.
      TableError: Rows cannot be read, or in two ways: all of them are named.
    """
    wide = os.path.isfile(path) and os.path.getsize(path) > files.TABLE_BYTES
    if columns and wide and delimiter_of(path) == ",":
        return parse(path, _narrowed(path, {name.lower() for name in columns}))
    return parse(path, read_text(path))


def _narrowed(path: epath.PathLike, wanted: Collection[str]) -> str:
    """Returns a CSV file with some of its columns alone, row by row, never all of it in memory."""
    kept = io.StringIO()
    writer = csv.writer(kept, lineterminator="\n")
    row = 0
    try:
        with files.opened(path, WIDE_BYTES) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", newline="")
            reader = csv.reader(text, strict=True)
            header = next(reader, [])
            places = [i for i, name in enumerate(header) if name.strip().lower() in wanted]
            writer.writerow([header[place] for place in places])
            for row, cells in enumerate(reader, start=2):
                if cells and len(cells) != len(header):
                    rule = f"has {counted(len(cells), 'cell')}, the header has {len(header)}"
                    refuse([Problem(str(path), row, "", "", rule)])
                writer.writerow([cells[place] for place in places] if cells else [])
    except csv.Error as error:
        refuse([Problem(str(path), row + 1, "", "", misquoted(error))])
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: near row {row + 1}: is not UTF-8; {_SAVE}") from error
    return kept.getvalue()


def read_text(path: epath.PathLike) -> str:
    """Returns the text of a UTF-8 file, with or without a byte-order mark, whatever its line ends.

    Raises:
      UserError: There is no such file, or it is not UTF-8 text; the row is named.
    """
    return decode(path, files.read_bytes(path))


def decode(path: epath.PathLike, data: bytes) -> str:
    """Returns what `read_text` does, for bytes that were read already."""
    for start, kind in _OTHER_FILES.items():
        if data.startswith(start):
            raise UserError(f"{path}: is {kind}, not text; save the table as CSV UTF-8")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[1:2] == b"\0" or data[:1] == b"\0":
        raise UserError(f"{path}: is UTF-16; {_SAVE}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = len(re.findall(rb"\r\n?|\n", data[: error.start])) + 1
        raise UserError(
            f"{path}: row {row}: byte {data[error.start : error.start + 1]!r} is not UTF-8 "
            f"(Latin-1?); {_SAVE}"
        ) from None
    return _line_ends(path, text)


def _line_ends(path: epath.PathLike, text: str) -> str:
    """Replaces line ends of Windows, and of old Macs where there is no other, by ``\n``."""
    text = text.replace("\r\n", "\n")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if found := _NO_TEXT.search(text):
        names = {
            "\0": "a NUL byte: the file is damaged, or no text",
            "\ufeff": "a byte-order mark within the file: were two files put together?",
        }
        row = text.count("\n", 0, found.start()) + 1
        damaged = f"the control character {found[0]!r}: the file is damaged, or no text"
        raise UserError(f"{path}: row {row}: holds {names.get(found[0], damaged)}")
    return text


def delimiter_of(path: epath.PathLike) -> str:
    """Returns the delimiter that a file must have: tabs in ``.tsv``, else commas."""
    return "\t" if str(path).lower().endswith(".tsv") else ","


def parse(path: epath.PathLike, text: str) -> Rows:
    """`read` of text with ``\\n`` as line end."""
    delimiter = delimiter_of(path)
    _check_delimiter(path, text, delimiter)
    split = _split_tsv if delimiter == "\t" else _split_csv
    problems: list[Problem] = []
    records = list(split(str(path), text, problems))
    refuse(problems)
    if not any(any(cells) for cells in records):
        raise UserError(f"{path}: is empty; a table begins with the names of its columns")
    if not any(name.strip() for name in records[0]):
        raise UserError(f"{path}: row 1: is blank; a table begins with the names of its columns")
    header = tuple(name.strip() for name in records[0])
    named = max((i + 1 for i, name in enumerate(header) if name), default=0)
    rows = [
        (number, tuple(map(str.strip, cells))) for number, cells in enumerate(records[1:], start=2)
    ]
    rows = [(number, cells) for number, cells in rows if any(cells)]
    refuse(_uneven(str(path), delimiter, len(header), named, rows))
    refuse(_unnamed(str(path), header[:named], rows))
    refuse(
        Problem(str(path), number, "", "", "repeats the header: were two files put together?")
        for number, cells in rows
        if cells[:named] == header[:named]
    )
    return Rows(
        path=str(path),
        header=header[:named],
        cells=tuple(cells[:named] for _, cells in rows),
        numbers=tuple(number for number, _ in rows),
        ended=text.endswith("\n"),
    )


def _check_delimiter(path: epath.PathLike, text: str, wanted: str) -> None:
    first = text.split("\n", 1)[0]
    if first.lower().startswith("sep="):
        raise UserError(f"{path}: row 1: is a note to Excel ({first}); remove the line")
    for other, name in _MARKS.items():
        if other != wanted and other in first and wanted not in first:
            rule, kind = ("tabs", ".tsv") if wanted == "\t" else ("commas", ".csv")
            remedy = (
                f"give it a name that ends in {'.tsv' if other == chr(9) else '.csv'}"
                if {other, wanted} == {",", "\t"}
                else f"save it as {kind} with decimal points"
            )
            raise UserError(
                f"{path}: row 1: separated by {name}; must be separated by {rule}: {remedy}"
            )


def _split_tsv(path: str, text: str, problems: list[Problem]) -> Iterator[list[str]]:
    wrapped = '"' in text
    for line in _lines(text):
        cells = line.split("\t") if line else []
        yield [_unwrapped(cell) for cell in cells] if wrapped else cells


def _unwrapped(cell: str) -> str:
    match = _WRAPPED.match(cell.strip())
    return match[1].replace('""', '"') if match else cell


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _split_csv(path: str, text: str, problems: list[Problem]) -> Iterator[list[str]]:
    lines = _lines(text)
    if '"' not in text:
        yield from (line.split(",") if line else [] for line in lines)
        return
    # A line end within a cell reaches the reader as a line end.
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    width, begun = lines[0].count(",") + 1, 0
    row = 0
    while True:
        row += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(Problem(path, row, "", "", misquoted(error)))
            return
        width = len(cells) if row == 1 else width
        own = lines[begun : reader.line_num]
        begun = reader.line_num
        # Taken as text, the quotation marks leave whole rows in the lines that a cell spans.
        if any(line.count(",") + 1 >= width for line in own[1:]):
            rule = (
                f"a quoted cell spans {len(own)} lines that look like rows; is a quotation mark "
                "astray? Write the cell on one line"
            )
            problems.append(Problem(path, row, "", "", rule))
        if any(_after_space(cell) for cell in cells):
            rule = "a space stands before a quotation mark that opens a cell; remove it"
            problems.append(Problem(path, row, "", "", rule))
        yield cells


def _after_space(cell: str) -> bool:
    return cell[:1].isspace() and cell.lstrip().startswith('"')


def _uneven(
    path: str,
    delimiter: str,
    width: int,
    named: int,
    rows: Sequence[tuple[int, tuple[str, ...]]],
) -> list[Problem]:
    """Returns a problem for each row of other length than the header; empty ends do not count."""
    widths = {len(cells) for _, cells in rows}
    if len(widths) == 1 and min(widths) >= named and not any(any(c[named:]) for _, c in rows):
        return []
    if len(rows) > 1 and widths == {width + 1} and any(rows[0][1][named:]):
        columns = counted(width, "column")
        rule = (
            f"every row has {width + 1} cells, the header names {columns}; name the one that has "
            "none (names of rows?)"
        )
        return [Problem(path, 1, "", "", rule)]
    return [
        Problem(path, number, "", "", f"has {counted(len(cells), 'cell')}, the header has {width}"
                + _why_uneven(delimiter, width, cells))
        for number, cells in rows
        if len(cells) != width
    ]  # fmt: skip


def _why_uneven(delimiter: str, width: int, cells: Sequence[str]) -> str:
    if delimiter == "\t" and len(re.split(r"\t|\s{2,}", "\t".join(cells))) == width:
        return " (spaces stand where a tab belongs)"
    if delimiter == "," and len(cells) > width and not any(cells[width:]):
        return " (delimiters without cells at its end)"
    if delimiter == "," and len(cells) > width:
        return " (a comma within a cell, perhaps a decimal comma?)"
    return ""


def _unnamed(
    path: str, header: Sequence[str], rows: Sequence[tuple[int, tuple[str, ...]]]
) -> list[Problem]:
    """Returns columns without a name that hold text; the first may number the rows."""
    return [
        Problem(path, 1, "", "", f"column {place + 1} has no name, but cells: name it")
        for place, name in enumerate(header)
        if place and not name and any(cells[place] for _, cells in rows)
    ]


def is_missing(values: pd.Series, missing: frozenset[str] = MISSING) -> pd.Series:
    """Returns where a text column says "missing"."""
    return values.str.lower().isin(missing)


def further_words(text: str, codes: Sequence[str]) -> frozenset[str]:
    """Words for missing besides those of an archive, whose own (-4) are part of its format.

    Args:
      text: ``+-9,unknown``.
      codes: What the user calls a code is a value.

    Raises:
      UserError: The list is to replace that of the archive.
    """
    if text and not text.startswith("+"):
        raise UserError(
            f"--missing: {text!r} cannot replace what the archive itself calls missing; put a + in "
            f"front, which adds to it: --missing=+{text}"
        )
    return words_for_missing(text) - MISSING - {code.lower() for code in codes}


def words_for_missing(text: str) -> frozenset[str]:
    """Returns a user's words for missing: ``NA,-9`` replaces `MISSING`, ``+-9`` is added to it."""
    words = {word.strip().lower() for word in text.removeprefix("+").split(",")}
    return frozenset(words | {""} | (MISSING if text.startswith("+") else frozenset()))
