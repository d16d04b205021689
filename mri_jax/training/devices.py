"""Devices: which there are, what memory they have, and where their programs are kept."""

import contextlib
import ctypes
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import jax
from etils import epath

from mri_jax import backend, device_faults
from mri_jax.errors import UserError
from mri_jax.models import choice
from mri_jax.models.chosen import Forms
from mri_jax.problems import counted
from mri_jax.showing.numbers import gibibytes
from mri_jax.training import hosts
from mri_jax.training.wave import Wave

_COMPUTED = {
    choice.NATIVE: " with compiled kernels",
    choice.XLA: " with XLA's own convolutions",
    choice.LANES: " by blocks of planes",
    choice.VOLUME: " with 3D convolutions",
    choice.PALLAS: " with the first block in kernels of its own",
    choice.REFERENCE: " in the plain form that others are compared with",
    choice.MEASURE: " in the forms that are the fastest here",
}
# More than cores only wait for each other; so many are worth no message.
_MOST_FOLDS = 16
_COMPILED = "/jax/core/compile/backend_compile_duration"


def start(
    stages: epath.Path,
    debug_nans: bool = False,
    cpu_folds: int = 1,
    forms: str | None = None,
    devices_per_fold: int = 1,
) -> Wave:
    """Configure JAX for a study, for this process, which must not have used JAX yet but so.

    Switches that change numbers are set, whatever the environment says (`mri_jax.backend`).

    A CPU is used as a device for each fold that trains at once, whatever XLA_FLAGS or
    JAX_NUM_CPU_DEVICES say.

    Args:
      stages: Compiled programs are kept under it (a local folder or a bucket), unless
        JAX_COMPILATION_CACHE_DIR names another place.
      debug_nans: Stop at the first NaN; then one device is used.
      cpu_folds: How many folds a CPU trains at once.
      forms: How conv layers are computed, of `mri_jax.models.choice.ASKED`; None: the choice of
        this machine.
      devices_per_fold: How many devices train one fold, each with a part of its batches.

    Returns:
      What to train on, the devices of all processes where there are several.

    Raises:
      UserError: ``cpu_folds`` is out of range, or above 1 where it cannot be used: on a machine
        that does not compute on a CPU, or while NaNs are looked for. Or native kernels are asked
        for where no CPU computes, or where they cannot be had. Or the backend cannot start, or
        devices are of several kinds, or no multiple of ``devices_per_fold``.
    """
    most = max(_MOST_FOLDS, usable_cores())
    if not 1 <= cpu_folds <= most:
        raise UserError(f"--cpu_folds: {cpu_folds} must be a whole number from 1 to {most}")
    backend.settle()
    if cpu_folds > 1 and debug_nans:
        raise UserError("--cpu_folds: must be 1 with --debug_nans, which trains one fold at a time")
    if (
        jax.config.values["jax_num_cpu_devices"] != cpu_folds
    ):  # a worker may be started more than once
        jax.config.update("jax_num_cpu_devices", cpu_folds)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(compiled_programs(stages)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_debug_nans", debug_nans)
    return_memory_after_compiling()
    # On a full disk every program says so; the first file of the study that fails says it once.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry")
    device_faults.devices()
    # While all processes are here: on CPUs the first collective operation waits half a minute.
    hosts.any_of(False)
    devices = tuple(jax.devices()[:1] if debug_nans else jax.devices())
    _refuse_unlike(devices)
    chosen = choice.required(forms)
    if devices[0].platform != "cpu" and cpu_folds > 1:
        raise UserError(f"--cpu_folds: {cpu_folds} is for CPUs; this machine has a GPU or TPU")
    if devices_per_fold < 1:
        raise UserError(f"--devices_per_fold: {devices_per_fold} must be at least 1")
    if len(devices) % devices_per_fold:
        more = (
            "; a CPU is one device, or as many as --cpu_folds says"
            if devices[0].platform == "cpu"
            else ""
        )
        raise UserError(
            f"--devices_per_fold: {devices_per_fold} does not divide the "
            f"{counted(len(devices), 'device')} that there are{more}"
        )
    return Wave(devices, devices_per_fold, chosen)


def _refuse_unlike(devices: Sequence[jax.Device]) -> None:
    """Refuses devices of several kinds: side by side they would compute other numbers, and wait."""
    kinds = Counter(device.device_kind for device in devices)
    if len(kinds) > 1:
        each = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        first = ",".join(
            str(i) for i, d in enumerate(devices) if d.device_kind == devices[0].device_kind
        )
        raise UserError(
            f"devices: are of {len(kinds)} kinds ({each}), which compute different numbers; choose "
            f"those of one kind, such as CUDA_VISIBLE_DEVICES={first}"
        )


def compiled_programs(stages: epath.Path) -> epath.Path:
    """Returns the folder of compiled programs."""
    return stages / "xla"


def one_fold_each(forms: Forms | None = None) -> Wave:
    """Returns every device with a fold of its own, or one device while NaNs are looked for."""
    devices = tuple(jax.local_devices())
    return Wave(devices[:1] if jax.debug_nans.value else devices, forms=forms)


def described(wave: Wave, memory: int) -> str:
    """Returns a line about devices, how they compute conv layers, folds and memory.

    Args:
      wave: The devices.
      memory: Bytes for a fold, as from `memory_of`.

    For example ``computing on the CPU with compiled kernels, one fold at a time, 6.1 GiB free``.
    """
    first, count = wave.devices[0], len(wave.devices)
    where = "the CPU" if wave.on_host else f"{count} x {first.device_kind}"
    how = "" if wave.computed == choice.XLA and not wave.on_host else _COMPUTED[wave.computed]
    folds = "one fold at a time" if wave.folds == 1 else f"{wave.folds} folds at once"
    if wave.split > 1:
        folds += f", each batch split over {wave.split}"
    if hosts.several():
        folds += f", {counted(jax.process_count(), 'process', 'processes')}"
    each = " for each" if wave.folds > 1 else ""
    return f"computing on {where}{how}, {folds}, {gibibytes(memory)} free{each}"


def memory_of(wave: Wave) -> int:
    """Returns the bytes for a fold: its device's, or its share of what the host can give."""
    stats = None if wave.on_host else wave.local[0].memory_stats()
    if stats:
        return int(stats["bytes_limit"]) * wave.split
    return available_memory() * wave.split // max(wave.split, len(wave.local))


def device_budget(wave: Wave) -> int:
    """Returns the bytes of volumes that each device of a wave may hold.

    That is half its memory. Devices of a CPU hold the same volumes in one place
    (`mri_jax.volumes.stream.Reader.load`), so there it is a share of what the host can give.
    """
    stats = None if wave.on_host else wave.local[0].memory_stats()
    if stats:
        return int(stats["bytes_limit"] * 0.5)
    return int(available_memory() * 0.4)


def fold_budget(wave: Wave, held: int) -> int:
    """Returns the bytes that each fold may hold on its devices besides volumes that all folds hold.

    Args:
      wave: The devices.
      held: Bytes of those volumes. What a host can give is counted without them.
    """
    budget = device_budget(wave)
    return budget // wave.folds if wave.on_host else (budget - held) // wave.beside


def available_memory() -> int:
    """Returns the bytes that the host can still give, by Linux's estimate; 4 GiB where unknown."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 4 << 30


def return_memory_after_compiling() -> None:
    """Give free memory back to the system whenever a program was compiled, where malloc can.

    Compiling frees hundreds of MB, which the allocator of `mri_jax.allocator` would keep beside
    what the program then needs.
    """
    with contextlib.suppress(OSError, AttributeError):  # on other systems than Linux with glibc
        trim = ctypes.CDLL(None).malloc_trim
        after_compiling(lambda: trim(0))


def after_compiling(call: Callable[[], object]) -> None:
    """Call something whenever JAX has compiled a program, before the program runs."""

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILED:
            call()

    jax.monitoring.register_event_duration_secs_listener(listen)


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def profiled(folder: str | None) -> Iterator[None]:
    """Write a trace for TensorBoard's profile plugin to ``folder``, if one is named."""
    if folder is None:
        yield
        return
    with jax.profiler.trace(folder):
        yield
