"""JAX as this program uses it: what changes numbers is its own choice, not the environment's.

A result is named by a fingerprint of all that determines it, and JAX takes many switches from
environment variables. `start` sets those of them that change numbers, for a process of our own;
importing this module changes nothing.
"""

import os
import re
from typing import Any

import jax
import jax.extend.backend

from mri_jax import device_faults
from mri_jax.errors import UserError

# Options of `jax.jit` for programs that draw normal numbers on a CPU. LLVM spends seconds of
# processor time on such a draw of each shape, and finds nothing: with fewer of its passes the bytes
# and the time of a call are the same, and compiling takes a half to a sixth of the time.
FEW_PASSES = {"xla_backend_optimization_level": 1}

# JAX's own defaults, written down, since other versions may have others.
_SWITCHES: dict[str, Any] = {
    "jax_allow_f16_reductions": True,
    "jax_debug_infs": False,
    "jax_default_device": None,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_enable_checks": False,
    "jax_enable_custom_prng": False,
    "jax_enable_x64": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_legacy_prng_key": "allow",
    "jax_no_execution": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_optimization_level": "UNKNOWN",
    "jax_random_seed_offset": 0,
    "jax_softmax_custom_jvp": False,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_threefry_partitionable": True,
    "jax_use_direct_linearize": True,
}
# XLA reads its flags itself, before anything could be set.
_INEXACT = re.compile(r"--\w*(?:fast_math|fast_min_max|excess_precision)\w*(?:=\w+)?")


def start() -> list[jax.Device]:
    """Set what changes numbers, and start the backend.

    Returns:
      The devices of this machine.

    Raises:
      UserError: The backend cannot start, or XLA_FLAGS ask for other arithmetic.
    """
    settle()
    return device_faults.devices()


def settle() -> None:
    """Set the switches of JAX that change numbers, for this process.

    Raises:
      UserError: XLA_FLAGS ask for other arithmetic, which cannot be set back.
    """
    inexact = _INEXACT.search(os.environ.get("XLA_FLAGS", ""))
    if inexact:
        raise UserError(f"XLA_FLAGS: {inexact[0]} must not be set: it changes results")
    for name, value in _SWITCHES.items():
        if name in jax.config.values:  # versions differ in what there is
            jax.config.update(name, value)
