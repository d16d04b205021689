"""Training steps compiled for a TPU and a GPU that are not there: they fit, and move few bytes."""

import importlib.util
from math import prod

import jax
import pytest
from jax.sharding import SingleDeviceSharding

from benchmarks import ahead_of_time
from benchmarks.ahead_of_time import ENVIRONMENT, PAPER, Case, compiled_step
from mri_jax.models import CNNSpec, choice
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.folds import Programs, Steps
from mri_jax.training.wave import Wave
from mri_jax.volumes.grids import GRIDS

pytestmark = pytest.mark.slow


def needs_compiler(module, extra):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None,
        reason=f"no compiler for this device: pip install -e '.[{extra}]'",
    )


FOR_TPU = needs_compiler("libtpu", "tpu")
FOR_GPU = needs_compiler("jax_cuda12_plugin", "cuda12")
CNN5 = Case("cnn5", 1.0, "paper", 2, "bfloat16")
CNN10 = Case("cnn10", 1.0, "paper", 2, "bfloat16")


@pytest.fixture(scope="module", autouse=True)
def environment():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        before = jax.config.jax_platforms
        # JAX would look for a card, and say that there is none.
        jax.config.update("jax_platforms", "cpu")
        yield
        jax.config.update("jax_platforms", before)


def needs(name, case, **options):
    device = ahead_of_time.device(name)
    return ahead_of_time.needs(compiled_step(case, device, **options), device)


# Compiling is refused where a core's 16 GB do not suffice.
@FOR_TPU
@pytest.mark.parametrize("case", PAPER, ids=str)
def test_every_network_of_the_paper_fits_a_tpu(case):
    found = needs("v5e", case)
    assert found.arguments + found.temporaries < 16e9


@FOR_TPU
def test_a_step_on_a_tpu_needs_little_memory_and_moves_few_bytes():
    found = needs("v5e", CNN5)
    assert found.temporaries < 3e9
    assert found.moved < 15e9


@FOR_TPU
def test_with_its_first_block_in_kernels_a_step_on_a_tpu_needs_half_the_memory():
    found = needs("v5e", CNN5, forms=choice.PALLAS)
    assert found.temporaries < 0.7e9
    assert found.moved < 10e9


@FOR_TPU
def test_a_batch_of_eight_fits_a_tpu():
    found = needs("v5e", Case("cnn5", 1.0, "paper", 8, "bfloat16"))
    assert found.arguments + found.temporaries < 16e9


# A v5e-8 and a v4-32. Five folds have a device each, or two where batches are split, as far as
# there are devices.
@FOR_TPU
@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("topology", ["v5e:2x4", "v4:2x2x4"])
def test_folds_compile_for_many_tpus(topology, split):
    cores = ahead_of_time.cores(topology)
    folds = min(5, len(cores) // split)
    wave = Wave(tuple(cores[: folds * split]), split, choice.XLA)
    # Of each core, beside the volumes that it holds.
    assert lowered(CNN5, wave).compile().memory_analysis().temp_size_in_bytes < 3e9


@FOR_GPU
def test_networks_side_by_side_on_a_gpu_share_no_memory():
    one = Wave((ahead_of_time.device("h100"),), forms=choice.XLA)
    case = Case("cnn5", 1.0, "demo", 2, "bfloat16")
    alone, beside = (
        lowered(case, one.of(folds)).compile({"xla_gpu_autotune_level": 0}).memory_analysis()
        for folds in (1, 2)
    )
    assert beside.temp_size_in_bytes > 1.8 * alone.temp_size_in_bytes


def lowered(case, wave):
    """Returns the training program of a wave, from shapes alone."""
    settings, state = ahead_of_time.settings_and_state(case)
    placed = SingleDeviceSharding(wave.devices[0]) if len(wave.devices) == 1 else None

    def given(*shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placed)

    def of_folds(*shape, dtype):
        return given(wave.folds, *shape, dtype=dtype)

    batches = (wave.steps_per_program, case.batch)
    steps = Steps(
        row=of_folds(*batches, dtype="int32"),
        label=of_folds(*batches, dtype="int32"),
        weight=of_folds(*batches, dtype="float32"),
        active=of_folds(wave.steps_per_program, dtype="bool"),
    )
    groups = len(wave.devices) // wave.split
    volumes = given(groups, 8, *GRIDS[case.grid].shape, 1, dtype="float32")
    states = jax.tree.map(lambda a: of_folds(*a.shape, dtype=a.dtype), state)
    program = Programs(wave).train(settings, AugmentSettings())
    if len(wave.devices) > 1:  # a map knows for what it is
        return program.lower(states, volumes, steps)
    return program.trace(states, volumes, steps).lower(lowering_platforms=("cuda",))


@FOR_GPU
def test_with_its_first_block_in_kernels_a_step_keeps_nothing_of_full_size_but_the_volumes():
    found = needs("h100", CNN5, forms=choice.PALLAS)
    assert found.moved < 1.5e9
    assert len(found.kernels) <= 110
    made = [array for kernel in found.kernels for array in kernel.made]
    voxels = CNN5.batch * prod(GRIDS["paper"].shape)
    # The second layer's pre-activation: twice the filters, an eighth of the voxels.
    assert max(array.size for array in made) < 2.1 * voxels
    assert max(array.size for array in made if array.dtype == "f32") < voxels / 2


@FOR_GPU
def test_with_its_first_layer_in_kernels_a_step_of_an_unpooled_block_moves_few_bytes():
    found = needs("h100", CNN10, forms=choice.PALLAS)
    assert found.moved < 5e9
    # Its first layer's convolution is not among cuDNN's, forward or back.
    forward = [k for k in found.kernels if "cudnn-conv" in k.name and "-bw-" not in k.name]
    assert len(forward) == len(CNNSpec.preset("cnn10").conv_filters) - 1


@FOR_GPU
@pytest.mark.parametrize(
    ("case", "moved", "kernels"), [(CNN5, 2.3e9, 110), (CNN10, 6.6e9, 180)], ids=str
)
def test_a_step_on_a_gpu_moves_few_bytes_in_few_kernels(case, moved, kernels):
    found = needs("h100", case)
    assert found.moved < moved
    assert len(found.kernels) <= kernels
    voxels = case.batch * prod(GRIDS["paper"].shape)
    made = [array for kernel in found.kernels for array in kernel.made]
    assert max(array.size for array in made) > voxels  # pre-activations, in bfloat16
    assert max(array.size for array in made if array.dtype == "f32") < voxels / 2
    # The way back computes each layer's pre-activation again, which XLA finds computed.
    forward = [k for k in found.kernels if "cudnn-conv" in k.name and "-bw-" not in k.name]
    assert len(forward) == len(CNNSpec.preset(case.member).conv_filters)
