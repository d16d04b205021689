"""Devices and programs that fail; the texts are those of JAX, XLA and CUDA."""

import logging
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mri_jax import device_faults
from mri_jax.device_faults import explained, reason
from mri_jax.errors import UserError
from mri_jax.training import devices
from tests.conftest import ROOT

LOGGER = logging.getLogger("jax._src.xla_bridge")
OLD_DRIVER = (
    "jaxlib/cuda/versions_helpers.cc:110: operation cudaGetDeviceCount(&device_count) failed: "
    "CUDA driver version is insufficient for CUDA runtime version"
)
OLD_CUDNN = (
    "Outdated cuDNN installation found.\nVersion JAX was built against: 90800\n"
    "Minimum supported: 908\nInstalled version: 90100\nThe local installation version must be no "
    "lower than 908."
)
TPU_IN_USE = (
    "ABORTED: The TPU is already in use by process with pid 2718466. Not attempting to load "
    "libtpu.so in this process."
)
NO_PLUGIN = (
    "An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed. "
    "Falling back to cpu."
)


def plugin_fails(text):
    """Logs what JAX does of a plugin that cannot be initialised."""
    try:
        raise RuntimeError(text)
    except RuntimeError:
        LOGGER.exception("Jax plugin configuration error: Exception when calling x.initialize()")
    LOGGER.warning(NO_PLUGIN)


@pytest.fixture
def started(monkeypatch, tmp_path, caplog):
    """Returns a function that starts the devices while JAX says something; a GPU is there."""
    (tmp_path / "nvidia0").touch()
    cpus = jax.local_devices()

    def start(say, gpu=True):
        places = (str(tmp_path / "nvidia0"),) if gpu else ()
        monkeypatch.setattr(device_faults, "_GPUS", places)
        monkeypatch.setattr(jax, "local_devices", lambda: say() or cpus)
        found = device_faults.devices()
        assert caplog.text == ""
        return found

    return start


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            OLD_DRIVER,
            "the NVIDIA driver is too old for the installed JAX; install a newer driver (",
        ),
        (
            OLD_CUDNN,
            "cuDNN is older than the installed JAX needs; pip install -e '.[cuda12]' brings the ",
        ),
    ],
)
def test_a_gpu_whose_driver_or_libraries_are_too_old_is_told_in_a_line(
    started, text, words, capsys
):
    with pytest.raises(UserError) as told:
        started(lambda: plugin_fails(text))
    assert str(told.value).startswith(f"devices: {words}")
    assert str(told.value).endswith(", or compute on the CPU with JAX_PLATFORMS=cpu")
    # Without a GPU nobody misses it.
    assert started(lambda: plugin_fails(text), gpu=False)[0].platform == "cpu"
    assert capsys.readouterr().err == ""
    assert not LOGGER.filters


def test_a_gpu_that_is_not_used_is_a_note(started, capsys):
    assert started(lambda: LOGGER.warning(NO_PLUGIN))[0].platform == "cpu"
    assert capsys.readouterr().err == (
        "note: the GPU of this machine is not used: JAX for CUDA is not installed "
        "(pip install -e '.[cuda12]')\n"
    )
    started(lambda: plugin_fails("operation cuInit(0) failed: CUDA_ERROR_UNKNOWN"))
    assert capsys.readouterr().err == (
        "note: the GPU of this machine is not used: operation cuInit(0) failed: "
        "CUDA_ERROR_UNKNOWN\n"
    )


def test_a_tpu_of_another_process_is_named(started, monkeypatch):
    words = "^devices: the TPU is in use by process 2718466; end that process, or wait for it"
    with pytest.raises(UserError, match=words):
        started(lambda: LOGGER.info("Unable to initialize backend 'tpu': %s", TPU_IN_USE))

    def refuse():
        raise RuntimeError(
            f"Unable to initialize backend 'tpu': {TPU_IN_USE} (set JAX_PLATFORMS='' to "
            "automatically choose an available backend)"
        )

    with pytest.raises(UserError, match=words + "$"):
        started(refuse)


def test_a_plugin_that_fails_is_told_without_a_traceback(tmp_path):
    folder = tmp_path / "jax_plugins" / "xla_cuda12"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        f"def initialize():\n    raise RuntimeError({OLD_DRIVER!r})\n", encoding="utf-8"
    )
    (tmp_path / "nvidia0").touch()
    code = (
        "from mri_jax import backend, device_faults\n"
        f"device_faults._GPUS = ({str(tmp_path / 'nvidia0')!r},)\n"
        "try:\n    backend.start()\nexcept device_faults.UserError as error:\n    print(error)\n"
    )
    there = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    there["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=there, capture_output=True, encoding="utf-8",
        check=True,
    )  # fmt: skip
    assert done.stdout.startswith("devices: the NVIDIA driver is too old for the installed JAX; ")
    assert done.stderr == ""


def test_devices_of_two_kinds_are_refused():
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    cards = [Device(kind) for kind in ("NVIDIA A100", "NVIDIA T4", "NVIDIA A100")]
    with pytest.raises(UserError) as told:
        devices._refuse_unlike(cards)
    assert str(told.value) == (
        "devices: are of 2 kinds (2 x NVIDIA A100, 1 x NVIDIA T4), which compute different "
        "numbers; choose those of one kind, such as CUDA_VISIBLE_DEVICES=0,2"
    )
    devices._refuse_unlike([cards[0], cards[2]])


def test_a_program_without_memory_is_one_line():
    def huge(x):
        return jnp.sort(jnp.sin(x * jax.lax.broadcasted_iota(jnp.float32, (1 << 21, 1 << 23), 0)))

    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jax.block_until_ready(jax.jit(huge)(2.0))
    assert reason(raised.value) == "out of memory"
    line = explained(raised.value)
    assert line.startswith("the CPU: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating ")
    assert "--config.train.batch" in line
    assert explained(RuntimeError("RESOURCE_EXHAUSTED: out of memory")) == ""


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("UNKNOWN: Failed to determine best cudnn convolution algorithm for: %conv",
         "cuDNN finds no algorithm for it"),
        ("INTERNAL: All algorithms tried for %cudnn-conv = (f32[2,8]) custom-call() failed.",
         "cuDNN finds no algorithm for it"),
        ("NOT_FOUND: No algorithm worked!  Error messages: ...", "cuDNN finds no algorithm for it"),
        ("INTERNAL: No reference output found!", "cuDNN finds no algorithm for it"),
        ("[cudnn_frontend] Error: No valid execution plans built.",
         "cuDNN finds no algorithm for it"),
        ("FAILED_PRECONDITION: DNN library initialization failed.", "cuDNN cannot be loaded"),
        ("UNIMPLEMENTED: DNN library is not found.", "cuDNN cannot be loaded"),
        ("Mosaic failed to compile", "JaxRuntimeError: Mosaic failed to compile"),
        ("", "JaxRuntimeError"),
    ],
)  # fmt: skip
def test_what_compilers_say_has_a_meaning(text, meaning):
    error = jax.errors.JaxRuntimeError(text)
    assert reason(error) == meaning
    assert bool(explained(error)) == ("cuDNN" in meaning)
