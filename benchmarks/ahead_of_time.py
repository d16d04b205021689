"""What a training step needs on a device that is not there, as the device's compiler says.

    python -m benchmarks.ahead_of_time h100    # all cases, some minutes
    python -m benchmarks.ahead_of_time v5e     # all cases, half an hour
    python -m benchmarks.ahead_of_time h100 cnn5:1:paper:2:bfloat16 --forms=lanes --kernels=20

A case is member:width:grid:batch:dtype.

Compiles for an NVIDIA H100 (extra ``cuda12``) or one core of a TPU v5e (extra ``tpu``) on a machine
without one: no driver is needed. What a compiler cannot say is seconds. Of a GPU's convolutions it
does not choose the algorithms either, for they are tried on the card: what they move beside inputs
and outputs is not counted.
"""

import argparse
import math
import os
import time
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import hlo
from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.training.packed import packed
from mri_jax.training.state import Batch, TrainState
from mri_jax.training.step import StepSettings, init_state, packed_step
from mri_jax.volumes.grids import GRIDS

# Read by libtpu when it is loaded: it asks no network for what machine it is on, and several
# processes may have it, since none has a TPU.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# What XLA asks of a card: an H100 with 80 GB, as its driver describes it.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass(frozen=True)
class Case:
    """A training step: member of the family, width, grid, volumes in a batch, dtype, its parts."""

    member: str
    width: float
    grid: str
    batch: int
    dtype: str
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Returns the case of a text such as ``cnn5:1:paper:2:bfloat16``, or ``...:bfloat16:2``."""
        member, width, grid, batch, dtype, *parts = text.split(":")
        return cls(member, float(width), grid, int(batch), dtype, *map(int, parts))

    def __str__(self) -> str:
        whole = f"{self.member}:{self.width:g}:{self.grid}:{self.batch}:{self.dtype}"
        return f"{whole}:{self.parts}" if self.parts > 1 else whole


@dataclass(frozen=True)
class Needs:
    """What a compiled step needs.

    Attributes:
      arguments: Bytes of the state and the batch.
      temporaries: Bytes of everything else that is in memory at once.
      moved: Bytes that are read and written: on TPUs by the compiler's own count, on GPUs by that
        of `benchmarks.hlo`.
      arithmetic: Floating point operations by the compiler's count; None for GPUs.
      kernels: Of a GPU, in the order in which they run; None for TPUs.
    """

    arguments: int
    temporaries: int
    moved: float
    arithmetic: float | None
    kernels: list[hlo.Kernel] | None


PAPER = tuple(
    Case(member, width, "paper", 2, dtype)
    for dtype, (member, width) in product(
        ("bfloat16", "float32"),
        [
            *(("cnn5", width) for width in (1.0, 2.0, 4.0, 5.0)),
            ("cnn7", 1.0),
            ("cnn10", 1.0),
            ("cnn12", 1.0),
        ],
    )
)
MORE = (
    Case("cnn5", 1.0, "dev", 2, "bfloat16"),
    Case("cnn5", 1.0, "paper", 8, "bfloat16"),
)


def cores(topology: str) -> list[jax.Device]:
    """Returns the cores of TPUs, such as ``v5e:2x4``, to compile for; `ENVIRONMENT` must be set."""
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def device(name: str) -> jax.Device:
    """Returns what to compile for, ``h100`` or a core of a ``v5e``; `ENVIRONMENT` must be set."""
    if name == "v5e":
        return cores("v5e:2x2")[0]
    return topologies.get_topology_desc(
        platform="cuda", topology_name="1x1x1", topology="1x1x1", target_config=_H100
    ).devices[0]


def settings_and_state(case: Case) -> tuple[StepSettings, TrainState]:
    """Returns what a step is, and the shapes of its state."""
    spec = CNNSpec.preset(case.member, width=case.width, dtype=case.dtype)
    settings = StepSettings(spec, accumulate=case.parts)

    def begin(words: jax.Array) -> TrainState:
        volume = jax.ShapeDtypeStruct((1, *GRIDS[case.grid].shape, 1), jnp.float32)
        key = jax.random.wrap_key_data(words)
        return init_state(settings, CNN(settings.spec).lazy_init(key, volume, train=False), words)

    return settings, jax.eval_shape(begin, jax.ShapeDtypeStruct((2,), jnp.uint32))


def compiled_step(case: Case, device: jax.Device, forms: str = choice.XLA) -> jax.stages.Compiled:
    """Returns the training step, compiled for a device.

    Args:
      case: Which.
      device: For what.
      forms: How conv layers are computed, of `mri_jax.models.choice.FORMS`.

    Raises:
      jax.errors.JaxRuntimeError: It does not fit into the device's memory.
    """
    settings, state = settings_and_state(case)
    shape = GRIDS[case.grid].shape
    batch = Batch(
        image=jax.ShapeDtypeStruct((case.batch, *shape, 1), jnp.float32),
        label=jax.ShapeDtypeStruct((case.batch,), jnp.int32),
        weight=jax.ShapeDtypeStruct((case.batch,), jnp.float32),
    )
    there = SingleDeviceSharding(device)
    few = jax.eval_shape(lambda s: packed(s, settings.rules), state)
    placed = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), (few, batch)
    )
    step = jax.jit(lambda s, b: packed_step(settings, s, state, b, forms=forms), donate_argnums=0)
    if device.platform == "tpu":
        return step.trace(*placed).lower(lowering_platforms=("tpu",)).compile()
    lowered = step.trace(*placed).lower(lowering_platforms=("cuda",))
    return lowered.compile({"xla_gpu_autotune_level": 0})  # There is no card to try kernels on.


def needs(compiled: jax.stages.Compiled, device: jax.Device) -> Needs:
    """Returns what a step needs that was compiled for a device."""
    memory = compiled.memory_analysis()
    at_once = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    if device.platform == "tpu":
        cost = compiled.cost_analysis()
        return Needs(*at_once, cost["bytes accessed"], cost["flops"], None)
    try:
        kernels = hlo.kernels(compiled.as_text())
    except ValueError:  # a loop over the parts of a batch
        return Needs(*at_once, math.nan, None, None)
    return Needs(*at_once, sum(kernel.moved for kernel in kernels), None, kernels)


def main() -> None:
    """Prints a row of a table for each case, and a GPU's kernels where they are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("device", choices=("h100", "v5e"))
    parser.add_argument("cases", nargs="*", type=Case.parse, default=[*PAPER, *MORE])
    parser.add_argument("--forms", choices=choice.FORMS, default=choice.XLA)
    parser.add_argument(
        "--kernels", type=int, default=0, help="of a GPU: print so many, and of the largest arrays"
    )
    arguments = parser.parse_intermixed_args()
    os.environ.update(ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")
    there = device(arguments.device)
    print("| step | kernels | temporaries | moved | arithmetic | compiled in |")
    print("|---|---|---|---|---|---|")
    for case in arguments.cases:
        start = time.perf_counter()
        try:
            found = needs(compiled_step(case, there, arguments.forms), there)
        except jax.errors.JaxRuntimeError as error:
            print(f"| {case} | {str(error).splitlines()[0][:200]} | | | | |", flush=True)
            continue
        seconds = time.perf_counter() - start
        kernels = "" if found.kernels is None else len(found.kernels)
        arithmetic = "" if found.arithmetic is None else f"{found.arithmetic / 1e9:.0f} GFLOP"
        print(
            f"| {case} | {kernels} | {found.temporaries / 1e9:.2f} GB "
            f"| {found.moved / 1e9:.2f} GB | {arithmetic} | {seconds:.0f} s |",
            flush=True,
        )
        if arguments.kernels and found.kernels:
            _print_largest(found.kernels, arguments.kernels)


def _print_largest(kernels: list[hlo.Kernel], count: int) -> None:
    """Prints the kernels that move the most bytes, and the largest arrays that are written."""
    print("\nkernels that move the most:")
    for kernel in sorted(kernels, key=lambda kernel: -kernel.moved)[:count]:
        made = ", ".join(map(str, kernel.made))
        print(f"  {kernel.moved / 1e6:6.0f} MB  {kernel.name}  {made}  {kernel.source}")
    print("\nlargest arrays:")
    arrays = [(array, kernel) for kernel in kernels for array in kernel.made]
    for array, kernel in sorted(arrays, key=lambda pair: -pair[0].bytes)[:count]:
        print(f"  {array.bytes / 1e6:6.0f} MB  {array}  {kernel.name}")
    print()


if __name__ == "__main__":
    main()
