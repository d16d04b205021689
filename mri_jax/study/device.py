"""What there is to compute on, and where compiled programs are kept."""

import contextlib
import warnings
from collections.abc import Iterator

import jax
from etils import epath

from mri_jax.errors import UserError
from mri_jax.study.feeds import available_memory


def start(stages: epath.Path, debug_nans: bool = False, cpu_devices: int = 1) -> str:
    """Configure JAX for a study, for this process; returns a line about devices and memory.

    Args:
      stages: Compiled programs are kept in ``xla`` under it (a local folder or a bucket).
      debug_nans: Stop at the first NaN.
      cpu_devices: As how many devices a CPU is used, each for a fold of its own; JAX must not have
        been used yet.

    Raises:
      UserError: ``cpu_devices`` is below 1, or above 1 where it cannot be used: on a machine that
        does not compute on a CPU, or while NaNs are looked for.
    """
    if cpu_devices < 1:
        raise UserError(f"--cpu_devices: {cpu_devices} must be at least 1")
    if cpu_devices > 1 and debug_nans:
        raise UserError("--cpu_devices: NaNs are looked for (--debug_nans) on one device only")
    if cpu_devices > 1:
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    cache = stages / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_debug_nans", debug_nans)
    # On a full disk every program says so; the first file of the study that fails says it once.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
    devices = jax.local_devices()
    if cpu_devices > 1 and devices[0].platform != "cpu":
        raise UserError(f"--cpu_devices: {cpu_devices} on a machine that computes on a GPU or TPU")
    stats = devices[0].memory_stats() if devices[0].platform != "cpu" else None
    free = stats["bytes_limit"] if stats else available_memory()
    kind = f"{len(devices)} x {devices[0].platform} ({devices[0].device_kind})"
    return f"devices: {kind}, {free / 2**30:.1f} GiB free; compiled programs: {cache}"


def training_devices() -> tuple[jax.Device, ...]:
    """What a study trains on: every device, or one while NaNs are looked for."""
    devices = tuple(jax.local_devices())
    return devices[:1] if jax.debug_nans.value else devices


@contextlib.contextmanager
def profiled(folder: str | None) -> Iterator[None]:
    """Write a trace for TensorBoard's profile plugin to ``folder``, if one is named."""
    if folder is None:
        yield
        return
    with jax.profiler.trace(folder):
        yield
