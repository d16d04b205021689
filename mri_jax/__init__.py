"""mri_jax: does an MRI classifier, trained from scratch at one site, transfer to another?

The rooms of the package and what each may touch are described in ``docs/architecture.md``.
Importing ``mri_jax`` imports neither JAX nor any room; names below are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mri_jax.training.checkpoints import load_params

__version__ = "0.1.0"
__all__ = ["__version__", "load_params"]

_LAZY = {"load_params": "mri_jax.training.checkpoints"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mri_jax' has no attribute {name!r}")
