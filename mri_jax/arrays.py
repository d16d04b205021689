"""Arrays in ``.npz`` files that need not be trusted; what they declare is judged before reading."""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError

ARRAYS_BYTES = 2**30
"""The largest file of arrays that is read, and the most that its arrays may hold together."""
_HEADER_BYTES = 4096
"""More than what stands before the values of an array."""
_KINDS = "biufU"
DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # an encrypted member
    SyntaxError,  # in an array's header
    OverflowError,
)
"""What reading a damaged archive raises."""


def read_npz(path: epath.PathLike, limit: int = ARRAYS_BYTES) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name: numbers, truth values or text, never pickled objects.

    Raises:
      UserError: The file is absent, special or damaged, holds other things than arrays, or declares
        more than ``limit`` bytes, packed or unpacked; nothing was unpacked then.
    """
    data = files.read_bytes(path, limit)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return dict(_arrays(archive, path, limit))
    except UserError:
        raise
    except DAMAGES as error:
        why = str(error) or type(error).__name__
        raise UserError(
            f"{path}: cannot be read ({why}): cut off or damaged; copy it again, or make it anew"
        ) from None


def write_npz(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def _arrays(
    archive: zipfile.ZipFile, path: epath.PathLike, limit: int
) -> Iterator[tuple[str, np.ndarray]]:
    members = archive.infolist()
    declared = sum(member.file_size for member in members)
    if declared > limit:
        raise UserError(f"{path}: declares {declared:,} bytes; at most {limit:,} are read")
    if len({member.filename for member in members}) < len(members):
        raise UserError(f"{path}: names an array twice")
    for member in members:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise UserError(f"{path}: {member.filename} is no plain NumPy array")
            header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, transposed, dtype = header(file)
            size = dtype.itemsize * math.prod(shape)
            if dtype.kind not in _KINDS or not 0 <= member.file_size - size <= _HEADER_BYTES:
                raise UserError(
                    f"{path}: {member.filename} declares {dtype} {shape}, which its "
                    f"{member.file_size:,} bytes do not hold"
                )
            values = file.read(size)
            if len(values) < size or file.read(1):
                raise UserError(f"{path}: {member.filename} is cut short")
        array = np.frombuffer(values, dtype)
        array = array.reshape(shape[::-1]).T if transposed else array.reshape(shape)
        yield member.filename.removesuffix(".npy"), array
