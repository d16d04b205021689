"""The family of 3D-CNNs: spec and Flax modules; pure.

The names below are loaded when first used, so that the spec can be read without JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mri_jax.models.cnn import CNN
    from mri_jax.models.spec import CNNSpec

__all__ = ["CNN", "CNNSpec"]

_LAZY = {"CNN": "cnn", "CNNSpec": "spec"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
