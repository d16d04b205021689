"""Files that appear whole or not at all, on a local disk or a bucket (``gs://``)."""

import contextlib
import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from mri_jax.errors import UserError


@contextlib.contextmanager
def beside(path: epath.PathLike) -> Iterator[epath.Path]:
    """A temporary path in the same folder, renamed to ``path`` when the block ends without error.

    Args:
      path: Where the finished file (or folder) shall stand. Its folder is made if absent.

    Yields:
      The temporary path to write to. A reader never sees a half-written ``path``; when the block
      fails, nothing is left behind.

    Raises:
      UserError: The disk is full, or the folder cannot be written.
    """
    target = epath.Path(path)
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        _remove(temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{target}: the disk is full") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EPERM):
            raise UserError(f"{target}: cannot be written ({error.strerror})") from error
        raise
    except BaseException:
        _remove(temporary)
        raise


def on_bucket(path: epath.PathLike) -> bool:
    """Whether a path is in object storage (``gs://``), where nothing can be locked or appended."""
    return "://" in str(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """An absolute path; one in object storage is that already, which `epath` does not know."""
    found = epath.Path(path)
    return found if on_bucket(found) else found.absolute()


def _remove(path: epath.Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            path.rmtree()
        else:
            path.unlink(missing_ok=True)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Write a whole file of bytes, or nothing."""
    with beside(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a whole UTF-8 file, or nothing."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write JSON with sorted keys and an ending newline, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Read JSON.

    Raises:
      UserError: The file is absent or is not JSON.
    """
    try:
        return json.loads(epath.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None


def write_csv(path: epath.PathLike, frame: pd.DataFrame) -> None:
    """Write a table as CSV without its index; floats keep their shortest exact form."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_npy(path: epath.PathLike, array: np.ndarray) -> None:
    """Write one array as ``.npy``, never pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def sha256_of_file(path: os.PathLike[str] | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 (hexadecimal) of a JSON-serialisable value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
