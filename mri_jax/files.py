"""Files: read only when regular, sized and well formed; written whole or not at all.

Local disks and buckets (``gs://``). Everything that others may have made is read through
`read_bytes`, `read_text`, `read_json` and `read_csv`, which refuse in one line what cannot be read.
"""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from typing import IO, Any, NoReturn

import numpy as np
import pandas as pd
from etils import epath
from etils.epath import backend

from mri_jax import cells, strict_json
from mri_jax.errors import DiskFull, UserError

TABLE_BYTES = 2**28
"""The largest table or text that is read; the largest exports of archives hold a tenth."""
JSON_BYTES = 2**26
"""The largest JSON that is read: parsed, it takes up to twenty times as much memory."""

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """Gives a temporary path in the same folder, renamed to ``path`` when the block succeeds.

    Args:
      path: Where the finished file (or folder) shall stand. Its folder is made if absent.

    Yields:
      The temporary path to write to. A reader never sees a half-written ``path``; when the block
      fails, nothing is left behind.

    Raises:
      DiskFull: There is no room.
      UserError: The folder cannot be written.
    """
    target = epath.Path(path)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        _remove(temporary)
        if is_full(error):
            raise DiskFull(f"{target}: the disk is full") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EPERM):
            raise UserError(f"{target}: cannot be written ({error.strerror})") from error
        raise
    except BaseException:
        _remove(temporary)
        raise


def is_full(error: OSError) -> bool:
    """Returns whether an error says that a disk, quota or largest file size is exhausted."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def on_bucket(path: epath.PathLike) -> bool:
    """Returns whether a path is in object storage (``gs://``), without locks and appending."""
    return "://" in str(path)


def bucket_of(path: epath.PathLike) -> Any:
    """Returns the file system of a path in object storage, by fsspec.

    From then on it keeps no listings, `epath` included: other processes write there too.
    """
    found = backend.fsspec_backend.fs(str(path))
    if found.dircache.use_listings_cache:
        found.dircache.use_listings_cache = False
        found.invalidate_cache()
    return found


def children(folder: epath.Path) -> list[epath.Path]:
    """Returns what is in a folder, in any order; a bucket has no empty ones, so none if absent."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def move(path: epath.Path, folder: epath.Path) -> None:
    """Move a file or folder into another folder; in a bucket object by object."""
    if on_bucket(path):
        bucket_of(path).mv(str(path), str(folder / path.name), recursive=True)
    else:
        path.rename(folder / path.name)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns an absolute path; one in object storage is that already, unknown to `epath`."""
    found = epath.Path(path)
    return found if on_bucket(found) else found.absolute()


def expanded(path: epath.PathLike) -> str:
    """Returns a path as text, ``~`` and ``~NAME`` at its start replaced by the home folder.

    Raises:
      UserError: No home folder is known by that name.
    """
    text = os.fspath(path)
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise UserError(f"{text}: no such home folder; a folder of that name is ./{text}")
    return found


def _remove(path: epath.Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            path.rmtree()
        else:
            path.unlink(missing_ok=True)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Write a whole file of bytes, or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a whole UTF-8 file, or nothing.

    Raises:
      UserError: As `replacing`, or the text holds half a character, as the name of a file can.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        wrong = text[max(0, error.start - 20) : error.end + 20]
        raise UserError(f"{path}: {wrong!r} cannot be written as UTF-8; rename it") from None
    write_bytes(path, data)


def write_markdown(path: epath.PathLike, text: str) -> None:
    """Write Markdown in which nothing is HTML: names in it may come from anywhere."""
    write_text(path, text.replace("<", "&lt;"))


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write JSON with sorted keys and an ending newline, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def check_regular(path: epath.PathLike, limit: int | None = None) -> int:
    """Returns the size of a file in bytes, for readers that take only a path.

    Args:
      path: The file; links are followed.
      limit: The largest size accepted.

    Raises:
      UserError: There is no such file, it is a folder, pipe, socket or device, or is too large.
    """
    try:
        if on_bucket(path):
            size = int(epath.Path(path).stat().length)
        else:
            found = os.stat(path)
            _refuse_special(path, found.st_mode)
            size = found.st_size
    except (OSError, ValueError) as error:
        _refuse_unreadable(path, error)
    if limit is not None and size > limit:
        _refuse_size(path, size, limit)
    return size


def refuse_file(path: epath.PathLike, kind: str, *holds: str) -> None:
    """Refuse a file that was given in place of its folder.

    Args:
      path: What was given.
      kind: What the folder is.
      holds: Names of files, one of which tells that the file's own folder was meant.

    Raises:
      UserError: It is a file.
    """
    if on_bucket(path) or not os.path.isfile(path):
        return
    around = os.path.dirname(os.path.abspath(path))
    here = any(os.path.exists(os.path.join(around, name)) for name in holds)
    raise UserError(f"{path}: is a file; give the {kind}" + (f", here {around}" if here else ""))


def is_there(path: epath.PathLike) -> bool:
    """Returns whether something has this name, be it a link that leads nowhere."""
    return epath.Path(path).exists() if on_bucket(path) else os.path.lexists(path)


@contextlib.contextmanager
def opened(path: epath.PathLike, limit: int | None = None) -> Iterator[IO[bytes]]:
    """Opens a regular file for reading bytes; a pipe is not waited for.

    Raises:
      UserError: As `check_regular`, or it cannot be opened or read.
    """
    check_regular(path, limit)
    try:
        if on_bucket(path):
            with epath.Path(path).open("rb") as file:
                yield file
            return
        # Not blocking, and asked again: it may have become a pipe since.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            _refuse_special(path, os.fstat(handle).st_mode)
            yield file
    except OSError as error:
        _refuse_unreadable(path, error)


def _refuse_special(path: epath.PathLike, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS.items() if test(mode)), "no regular file")
        raise UserError(f"{path}: is {kind}, not a file")


def _refuse_unreadable(path: epath.PathLike, error: Exception) -> NoReturn:
    if isinstance(error, UserError):
        raise error
    if isinstance(error, FileNotFoundError):
        raise UserError(f"{path}: no such file") from None
    why = getattr(error, "strerror", None) or error
    raise UserError(f"{str(path)!r}: cannot be read ({why})") from None


def _refuse_size(path: epath.PathLike, size: int, limit: int) -> NoReturn:
    raise UserError(f"{path}: holds {size:,} bytes; at most {limit:,} are read")


def read_bytes(path: epath.PathLike, limit: int = TABLE_BYTES) -> bytes:
    """Returns the bytes of a regular file.

    Raises:
      UserError: As `check_regular`; a file that is larger than it says is not read further.
    """
    with opened(path, limit) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        _refuse_size(path, len(data), limit)
    return data


def read_text(path: epath.PathLike, limit: int = TABLE_BYTES) -> str:
    """Returns the text of a UTF-8 file, with or without a byte-order mark.

    Raises:
      UserError: It cannot be read, or is not UTF-8 text; the row and the byte are named.
    """
    data = read_bytes(path, limit)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path}: is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: row {row}: byte {data[error.start : error.start + 1]!r} is not UTF-8; "
            "save the file as UTF-8"
        ) from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}: row {row}: a NUL byte is no text; save the file as UTF-8")
    return text


def read_json(path: epath.PathLike, kind: type = object) -> Any:
    """Read JSON.

    Args:
      path: The file.
      kind: What it must hold at its top: dict, list, or any.

    Raises:
      UserError: As `read_text` and `mri_jax.strict_json.parse`.
    """
    return strict_json.parse(read_text(path, JSON_BYTES), str(path), kind)


def read_csv(
    path: epath.PathLike,
    text: Sequence[str] | None = None,
    limit: int = TABLE_BYTES,
    whole: bool = False,
    comment: str = "",
) -> pd.DataFrame:
    """Read a table as `write_csv` writes it.

    Args:
      path: The file.
      text: Columns that are text, ``""`` where missing; the others are what pandas takes them for,
        NaN where missing. By default all are text.
      limit: The largest size that is read, in bytes.
      whole: Whether the last row must end with a line end, as in every file of this program; an
        editor may leave it out.
      comment: Lines that begin with it are left out.

    Returns:
      The table; cells that `write_csv` made harmless are as they were before.

    Raises:
      UserError: It cannot be read, holds no header, a column twice, an open quotation mark, or a
        row with more or fewer cells than the header.
    """
    content = read_text(path, limit)
    if comment:
        lines = content.splitlines(keepends=True)
        content = "".join(line for line in lines if not line.startswith(comment))
    header = _check_rows(path, content)
    if whole and not content.endswith("\n"):
        raise UserError(f"{path}: ends in the middle of a row: it was cut short")
    others = {n: cells.NO_VALUE for n in header if text is not None and cells.bare(n) not in text}
    try:
        frame = pd.read_csv(
            io.StringIO(content),
            dtype={name: str for name in header if name and name not in others},
            keep_default_na=False,
            na_values=others,
            low_memory=False,
            index_col=False,
        )
    except (ValueError, OverflowError) as error:  # pandas' ParserError is a ValueError
        raise UserError(f"{path}: is not a readable table ({str(error).strip()})") from None
    return cells.unguarded(frame)


def _check_rows(path: epath.PathLike, content: str) -> list[str]:
    """Returns the header of a table, all rows of which have as many cells; blank lines are none."""
    header: list[str] = []
    rows = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        for row in rows:
            header = header or row
            if row and len(row) != len(header):
                raise UserError(
                    f"{path}: row {rows.line_num}: has another number of cells ({len(row)}) than "
                    f"the header ({len(header)})"
                )
    except csv.Error as error:
        raise UserError(f"{path}: row {rows.line_num}: {cells.misquoted(error)}") from None
    if not header:
        raise UserError(f"{path}: is empty: not even a header")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise UserError(f"{path}: column {twice[:60]!r} occurs twice")
    return header


def write_csv(path: epath.PathLike, frame: pd.DataFrame) -> None:
    """Write the `csv_text` of a table."""
    write_text(path, csv_text(frame))


def csv_text(frame: pd.DataFrame) -> str:
    """Returns a table as CSV without its index; floats keep their shortest exact form.

    Text that a spreadsheet would run is made harmless (`mri_jax.cells`); `read_csv` undoes it.
    """
    harmless = cells.guarded(frame)
    text = harmless.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which the writer leaves bare, and readers take for the end of a row
        text = harmless.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text


def write_npy(path: epath.PathLike, array: np.ndarray) -> None:
    """Write one array as ``.npy``, never pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def sha256_of_file(path: os.PathLike[str] | str) -> str:
    """Returns SHA-256 of a file's bytes, in hexadecimal."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def sha256_of_bytes(data: bytes) -> str:
    """Returns SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: Any) -> str:
    """Returns SHA-256 (hexadecimal) of a value for JSON, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
