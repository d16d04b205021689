"""Plain arrays in one file: no pickle, not compressed, and judged before they are read."""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.arrays import ARRAYS_BYTES, DAMAGES
from mri_jax.errors import UserError

HEADER_BYTES = 4096
"""More than what stands around an array in such a file."""


def write(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name."""
    buffer = io.BytesIO()
    # Not compressed: a small file then cannot unpack to a large array.
    np.savez(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def read(path: epath.Path, expected: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """The arrays of a file that need not be trusted.

    Args:
      path: Whose size was already compared with what ``expected`` allows.
      expected: Shape and kind of each array, by name; float32 stands for float64 too.

    Raises:
      UserError: It holds anything else, or a value that is not finite.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(files.read_bytes(path, ARRAYS_BYTES))) as archive:
            return dict(_members(archive, path, expected))
    except UserError:
        raise
    except DAMAGES as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _members(
    archive: zipfile.ZipFile, path: epath.Path, expected: Mapping[str, jax.ShapeDtypeStruct]
) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of an archive; the header of each is judged before its content is read."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    odd = sorted(set(members) ^ set(expected))
    if odd or len(members) != len(archive.infolist()):
        raise UserError(f"{path}: its arrays are not those of the spec ({', '.join(odd[:3])})")
    for name, wanted in expected.items():
        if members[name].compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: {name} is compressed; a model's arrays are not")
        with archive.open(members[name]) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise UserError(f"{path}: {name} is not plain NumPy format 1.0")
            shape, transposed, dtype = np.lib.format.read_array_header_1_0(file)
            kinds = ("<f4", "<f8") if np.issubdtype(wanted.dtype, np.floating) else ("<i4",)
            if shape != wanted.shape or transposed or dtype.str not in kinds:
                raise UserError(
                    f"{path}: {name} is {dtype} {shape}; the spec needs {kinds[0]} {wanted.shape}"
                )
            data = file.read(dtype.itemsize * math.prod(shape))
        array = np.frombuffer(data, dtype).reshape(shape)
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} is not finite")
        yield name, array
