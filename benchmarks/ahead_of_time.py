"""What a training step needs on a device that is not there, as the device's compiler says.

    python -m benchmarks.ahead_of_time                           # all cases, about half an hour
    python -m benchmarks.ahead_of_time cnn5:1:paper:2:bfloat16   # member:width:grid:batch:dtype

Compiles for one core of a TPU v5e (16 GB of memory, 819 GB/s) on a machine without one. Needs the
extra ``tpu``. What the compiler cannot say is seconds.
"""

import argparse
import os
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from mri_jax.models import CNN, CNNSpec, choice
from mri_jax.training.state import Batch
from mri_jax.training.step import StepSettings, init_state, train_step
from mri_jax.volumes.grids import GRIDS

# Read by libtpu when it is loaded: it asks no network for what machine it is on.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclass(frozen=True)
class Case:
    """A training step: member of the family, width, grid, volumes in a batch, dtype."""

    member: str
    width: float
    grid: str
    batch: int
    dtype: str

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Returns the case of a text such as ``cnn5:1:paper:2:bfloat16``."""
        member, width, grid, batch, dtype = text.split(":")
        return cls(member, float(width), grid, int(batch), dtype)

    def __str__(self) -> str:
        return f"{self.member}:{self.width:g}:{self.grid}:{self.batch}:{self.dtype}"


@dataclass(frozen=True)
class Needs:
    """What a compiled step needs.

    Attributes:
      arguments: Bytes of the state and the batch.
      temporaries: Bytes of everything else that is in memory at once.
      moved: Bytes that are read and written, by the compiler's own count.
      arithmetic: Floating point operations, by the same count.
    """

    arguments: int
    temporaries: int
    moved: float
    arithmetic: float


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


def tpu() -> jax.Device:
    """Returns a core of a TPU v5e to compile for; `ENVIRONMENT` must be set."""
    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]


def compiled_step(case: Case, device: jax.Device) -> jax.stages.Compiled:
    """Returns the training step, compiled for a device.

    Raises:
      jax.errors.JaxRuntimeError: It does not fit into the device's memory.
    """
    spec = CNNSpec.preset(case.member, width=case.width, dtype=case.dtype)
    settings = StepSettings(spec)
    shape = GRIDS[case.grid].shape

    def begin(words: jax.Array) -> Any:
        volume = jax.ShapeDtypeStruct((1, *shape, 1), jnp.float32)
        key = jax.random.wrap_key_data(words)
        return init_state(settings, CNN(spec).lazy_init(key, volume, train=False), words)

    state = jax.eval_shape(begin, jax.ShapeDtypeStruct((2,), jnp.uint32))
    batch = Batch(
        image=jax.ShapeDtypeStruct((case.batch, *shape, 1), jnp.float32),
        label=jax.ShapeDtypeStruct((case.batch,), jnp.int32),
        weight=jax.ShapeDtypeStruct((case.batch,), jnp.float32),
    )
    there = SingleDeviceSharding(device)
    placed = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), (state, batch)
    )
    step = jax.jit(lambda s, b: train_step(settings, s, b, forms=choice.XLA), donate_argnums=0)
    return step.trace(*placed).lower(lowering_platforms=(device.platform,)).compile()


def needs(compiled: jax.stages.Compiled) -> Needs:
    """Returns what a compiled step needs."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return Needs(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        cost["bytes accessed"],
        cost["flops"],
    )


def main() -> None:
    """Prints a row of a table for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", type=Case.parse, default=[*PAPER, *MORE])
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")
    device = tpu()
    print("| step | temporaries | moved | arithmetic | compiled in |\n|---|---|---|---|---|")
    for case in arguments.cases:
        start = time.perf_counter()
        try:
            found = needs(compiled_step(case, device))
        except jax.errors.JaxRuntimeError as error:
            print(f"| {case} | {str(error).splitlines()[0][:200]} | | | |", flush=True)
            continue
        seconds = time.perf_counter() - start
        print(
            f"| {case} | {found.temporaries / 1e9:.2f} GB | {found.moved / 1e9:.1f} GB "
            f"| {found.arithmetic / 1e9:.0f} GFLOP | {seconds:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
