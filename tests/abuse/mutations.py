"""Ways to damage a file, each a function of a random stream; all are named."""

import csv
import io
import json
import os
import random
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutation = Callable[[random.Random, Path], None]

ODD_CELLS = (
    *("-1e308", "nan", "inf", "999", "-5", "1e400", "0x10", "١٢", "True", "None", "=1+1", "@x"),
    *("a" * 5000, "a\u200bb", "../../x", "/etc/passwd", "\u202e", "<script>", '"', "a,b", "\r"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 2**70, -(2**63), 1e300, "", "x", "../..", [], {}, [[]], [None]),
    *({"a": {}}, [1, 2, 3, 4], "\u0000", 10**30, "9" * 5000, list(range(1000))),
)


def flip(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 3)):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def flip_head(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 4)):
        if data:
            data[draw.randrange(min(len(data), 400))] = draw.randrange(256)
    path.write_bytes(data)


def truncate(draw: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(max(1, len(data)))])


def empty(draw: random.Random, path: Path) -> None:
    path.write_bytes(b"")


def append(draw: random.Random, path: Path) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randint(1, 5000)))


def insert(draw: random.Random, path: Path) -> None:
    data = path.read_bytes()
    at = draw.randrange(len(data) + 1)
    odd = draw.choice([b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"\r", b"\n", b",", b"\x1b[2J"])
    path.write_bytes(data[:at] + odd + data[at:])


def noise(draw: random.Random, path: Path) -> None:
    path.write_bytes(draw.randbytes(draw.choice([1, 100, 10_000])))


def utf16(draw: random.Random, path: Path) -> None:
    path.write_bytes(path.read_bytes().decode("utf-8", "replace").encode("utf-16"))


def latin1(draw: random.Random, path: Path) -> None:
    data = path.read_bytes()
    at = draw.randrange(len(data) + 1)
    path.write_bytes(data[:at] + "é".encode("latin-1") + data[at:])


def remove(draw: random.Random, path: Path) -> None:
    path.unlink()


def pipe(draw: random.Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def device(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(draw.choice(["/dev/zero", "/dev/random", "/dev/tty", "/dev/null"]))


def socket_file(draw: random.Random, path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name[:90])
    finally:
        os.chdir(here)


def lost_link(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def loop(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_out(draw: random.Random, path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def huge(draw: random.Random, path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(6 << 30)  # a hole: it takes no room on the disk


def _rows(path: Path) -> list[list[str]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    text = path.read_text(encoding="utf-8")
    return list(csv.reader(io.StringIO(text), delimiter=delimiter))


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    out = io.StringIO()
    delimiter = "\t" if path.suffix == ".tsv" else ","
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8", newline="")


def double_row(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    rows.insert(draw.randrange(1, len(rows) + 1), rows[draw.randrange(1, max(2, len(rows)))])
    _write_rows(path, rows)


def drop_row(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    del rows[draw.randrange(len(rows))]
    _write_rows(path, rows)


def shuffle_rows(draw: random.Random, path: Path) -> None:
    head, *rows = _rows(path)
    draw.shuffle(rows)
    _write_rows(path, [head, *rows])


def drop_column(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    at = draw.randrange(len(rows[0]))
    _write_rows(path, [row[:at] + row[at + 1 :] for row in rows])


def double_column(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    at = draw.randrange(len(rows[0]))
    _write_rows(path, [[*row, row[at]] for row in rows])


def drop_cell(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    row = rows[draw.randrange(len(rows))]
    del row[draw.randrange(len(row))]
    _write_rows(path, rows)


def odd_cell(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    row = rows[draw.randrange(1, len(rows))]
    row[draw.randrange(len(row))] = draw.choice(ODD_CELLS)
    _write_rows(path, rows)


def swap_cells(draw: random.Random, path: Path) -> None:
    rows = _rows(path)
    row = rows[draw.randrange(1, len(rows))]
    one, other = draw.randrange(len(row)), draw.randrange(len(row))
    row[one], row[other] = row[other], row[one]
    _write_rows(path, rows)


def no_rows(draw: random.Random, path: Path) -> None:
    _write_rows(path, _rows(path)[:1])


def semicolons(draw: random.Random, path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")


def places(value: Any, at: tuple = ()) -> list[tuple]:
    found = [at] if at else []
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*at, name))
    return found


def _changed(draw: random.Random, path: Path, change: Callable[[Any, Any], None]) -> None:
    lines = [path.read_text(encoding="utf-8")]
    if path.suffix == ".jsonl":
        lines = lines[0].splitlines()
    at = draw.randrange(len(lines))
    value = json.loads(lines[at])
    found = places(value)
    if not found:
        path.write_text(json.dumps(draw.choice(ODD_VALUES)), encoding="utf-8")
        return
    *way, last = draw.choice(found)
    inner = value
    for name in way:
        inner = inner[name]
    change(inner, last)
    lines[at] = json.dumps(value)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def odd_value(draw: random.Random, path: Path) -> None:
    _changed(draw, path, lambda inner, last: inner.__setitem__(last, draw.choice(ODD_VALUES)))


def drop_value(draw: random.Random, path: Path) -> None:
    _changed(draw, path, lambda inner, last: inner.__delitem__(last))


def other_json(draw: random.Random, path: Path) -> None:
    path.write_text(json.dumps(draw.choice(ODD_VALUES)), encoding="utf-8")


def deep_json(draw: random.Random, path: Path) -> None:
    path.write_text(draw.choice(["[", '{"a":']) * 200_000, encoding="utf-8")


def odd_number(draw: random.Random, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    places = [i for i, c in enumerate(text) if c.isdigit()]
    odd = draw.choice(["NaN", "1e999", "-Infinity", "9" * 6000, "1E5", "0.5"])
    at = draw.choice(places) if places else 0
    path.write_text(text[:at] + odd + text[at + 1 :], encoding="utf-8")


def double_key(draw: random.Random, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    name = draw.choice(["format", "grid", "settings", "fingerprint", "a"])
    path.write_text(text.replace("{", f'{{"{name}": 1, "{name}": 2, ', 1), encoding="utf-8")


def npy_header(draw: random.Random, path: Path) -> None:
    """A header of NumPy's that declares something else, before the same bytes."""
    shape = draw.choice([(2**40,), (10**6, 10**6), (3, 3), (), (-1,), (9, 12, 10), (48, 56, 48)])
    kind = draw.choice(["<f2", "<f8", "|O", "<c16", "|b1", "<i8", "|V8", "<f4", "<U9"])
    header = str({"descr": kind, "fortran_order": draw.random() < 0.5, "shape": shape})
    header = header.ljust(118) + "\n"
    body = path.read_bytes()[128:]
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body)


def nifti_header(draw: random.Random, path: Path) -> None:
    """Another number in a field of a NIfTI-1 header."""
    data = bytearray(path.read_bytes())
    fields = (
        *((40, "<h", range(-2, 9)), (42, "<h", (-1, 0, 1, 32767)), (44, "<h", (0, 1, 32767))),
        *((70, "<h", (0, 1, 2, 8, 64, 128, 1792, 9999)), (72, "<h", (0, 7, 64))),
        *((80, "<f", (0.0, -1.0, 1e30, float("nan"), 1e-6)), (108, "<f", (0, 348, 1e9, -5.0))),
        *((112, "<f", (0.0, float("inf"), float("nan"), -1.0)), (116, "<f", (1e38, -1e38))),
        *((252, "<h", (0, 9, -1)), (254, "<h", (0, 9, -1)), (280, "<f", (0.0, float("nan"), 1e20))),
        *((344, "4s", (b"ni1\0", b"xxxx")), (0, "<i", (0, 540, 348))),
    )
    at, form, values = draw.choice(fields)
    data[at : at + struct.calcsize(form)] = struct.pack(form, draw.choice(list(values)))
    path.write_bytes(data)


def zip_bomb(draw: random.Random, path: Path) -> None:
    """An archive of an array of zeros: 6 MB packed, 1.3 GB unpacked."""
    header = str({"descr": "<f4", "fortran_order": False, "shape": (5 << 26,)}).ljust(118) + "\n"
    top = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a/source/fold0/conv1.npy", "w", force_zip64=True) as file,
    ):
        file.write(top)
        for _ in range(5 << 6):
            file.write(bytes(1 << 22))


def zip_lie(draw: random.Random, path: Path) -> None:
    """Another number somewhere in the directory of an archive."""
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    for _ in range(draw.randint(1, 3)):
        data[at + draw.randrange(46) if at >= 0 else 0] = draw.randrange(256)
    path.write_bytes(data)


ANY = (
    *(flip, flip, flip, flip_head, truncate, truncate, empty, append, insert, insert, noise),
    *(remove, pipe, folder, device, socket_file, lost_link, loop, link_out, huge),
)
TABLE = (
    *(utf16, latin1, double_row, drop_row, shuffle_rows, drop_column, double_column, drop_cell),
    *(odd_cell, odd_cell, odd_cell, odd_cell, odd_cell, swap_cells, swap_cells, no_rows),
    semicolons,
)
JSON = (
    *(utf16, latin1, odd_value, odd_value, odd_value, odd_value, odd_value, drop_value),
    *(drop_value, drop_value, other_json, deep_json, odd_number, odd_number, double_key),
)
NPY = (npy_header, npy_header, npy_header, flip, flip)
NIFTI = (nifti_header,) * 8
ZIP = (zip_lie, zip_lie, zip_bomb, flip)


def of(path: Path) -> tuple[Mutation, ...]:
    """What can be done to a file of its kind."""
    if path.suffix in (".csv", ".tsv"):
        return (*ANY, *TABLE)
    if path.suffix in (".json", ".jsonl"):
        return (*ANY, *JSON)
    if path.suffix == ".npy":
        return (*ANY, *NPY)
    if path.name.endswith(".nii"):
        return (*ANY, *NIFTI)
    if path.suffix == ".npz":
        return (*ANY, *ZIP)
    return ANY
