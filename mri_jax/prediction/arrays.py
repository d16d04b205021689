"""The arrays of a network in one file: no pickle, and held to what its spec needs."""

import io
import math
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.arrays import read_npz
from mri_jax.errors import UserError

# More than what stands around an array in such a file.
_HEADER_BYTES = 4096


def write(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    files.write_bytes(path, buffer.getvalue())


def most_bytes(expected: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Returns the size above which a file, packed or unpacked, holds other arrays than these."""
    return sum(8 * math.prod(each.shape) + _HEADER_BYTES for each in expected.values())


def read(path: epath.Path, expected: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file that need not be trusted.

    Args:
      path: The file.
      expected: Shape and kind of each array, by name; float32 stands for float64 too.

    Raises:
      UserError: It holds anything else, or a value that is not finite.
    """
    found = read_npz(path, most_bytes(expected))
    odd = sorted(set(found) ^ set(expected))
    if odd:
        raise UserError(f"{path}: its arrays are not those of the spec ({', '.join(odd[:3])})")
    for name, wanted in expected.items():
        array = found[name]
        kinds = ("<f4", "<f8") if np.issubdtype(wanted.dtype, np.floating) else ("<i4",)
        if array.shape != wanted.shape or array.dtype.str not in kinds:
            raise UserError(
                f"{path}: {name} is {array.dtype} {array.shape}; the spec needs {kinds[0]} "
                f"{wanted.shape}"
            )
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} is not finite")
    return found
