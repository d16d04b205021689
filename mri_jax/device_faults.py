"""What JAX, XLA and CUDA say of devices and programs that fail, in a line that says what to do."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

import jax

from mri_jax.errors import UserError


class _Fault(NamedTuple):
    """A known fault.

    Attributes:
      words: What is said, a regular expression.
      meaning: What it means; groups of the expression may stand in it.
      remedy: What helps.
    """

    words: str
    meaning: str
    remedy: str


_OF_PROGRAMS = (
    _Fault(
        "RESOURCE_EXHAUSTED|out of memory",
        "out of memory",
        "a smaller batch (--config.train.batch, --batch) or bfloat16 activations "
        "(--config.model.dtype=bfloat16) take less",
    ),
    _Fault(
        "best cudnn conv[a-z]* algorithm|no algorithm worked|all algorithms tried|"
        "no reference output found|no valid engine configs|no valid execution plans",
        "cuDNN finds no algorithm for it",
        "--forms=measure leaves out the forms that it fails for; another process on the GPU may "
        "leave it too little memory",
    ),
    _Fault(
        "DNN library (?:is not found|initialization failed)",
        "cuDNN cannot be loaded",
        "install the one that JAX asks for (pip install -e '.[cuda12]'), and see that no other "
        "process fills the GPU",
    ),
)
_OF_GPUS = (
    _Fault(
        "driver version is insufficient|insufficient driver version",
        "the NVIDIA driver is too old for the installed JAX",
        "install a newer driver (nvidia-smi shows the one in use)",
    ),
    _Fault(
        r"Outdated (\w+) installation found",
        r"\1 is older than the installed JAX needs",
        "pip install -e '.[cuda12]' brings the right one; LD_LIBRARY_PATH must not name another",
    ),
)
_OF_TPUS = (
    _Fault(
        r"TPU is already in use by process with pid (\d+)",
        r"the TPU is in use by process \1",
        "end that process, or wait for it",
    ),
    _Fault(
        r"libtpu\.so already in use",
        "the TPU is in use by another process",
        "end that process (sudo lsof -w /dev/accel0 names it), or wait for it",
    ),
)
# Where Linux, containers and Linux on Windows show NVIDIA's GPUs.
_GPUS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")


def devices() -> list[jax.Device]:
    """Returns the devices of this machine; starts the backend.

    Where JAX takes the CPU though there is a GPU, a line on standard error says why, in place of
    what JAX logs.

    Raises:
      UserError: The backend that JAX_PLATFORMS names cannot start; or there is a GPU whose driver
        or libraries are too old, or a TPU that another process uses.
    """
    with _heard() as said:
        try:
            found = jax.local_devices()
        except (RuntimeError, AssertionError) as error:  # an assertion where CUDA is not installed
            _refuse(error)
    if found[0].platform == "cpu":
        _check_passed_over(said)
    return found


def reason(error: Exception) -> str:
    """Returns in a few words why a program could not be compiled or run.

    Example:
      >>> from mri_jax.device_faults import reason
      >>> reason(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."))
      'out of memory'
    """
    known = _known(_OF_PROGRAMS, str(error))
    text = _one_line(error)[:160]
    return known.meaning if known else f"{type(error).__name__}: {text}".removesuffix(": ")


def explained(error: Exception) -> str:
    """Returns a line for what XLA raises where the user can mend it; empty for all else."""
    known = isinstance(error, jax.errors.JaxRuntimeError) and _known(_OF_PROGRAMS, str(error))
    if not known:
        return ""
    device = jax.local_devices()[0]
    where = "the CPU" if device.platform == "cpu" else device.device_kind
    return f"{where}: {known.meaning} ({_one_line(error)[:120]}); {known.remedy}"


def _refuse(error: Exception) -> NoReturn:
    """Says in one line that no backend can start."""
    fault = _known(_OF_GPUS + _OF_TPUS, str(error))
    if fault:
        raise UserError(f"devices: {fault.meaning}; {fault.remedy}") from None
    asked = os.environ.get("JAX_PLATFORMS", "")
    why = re.split(r" \((?:set JAX_PLATFORMS|you may need)", _one_line(error))[0]
    told = f" ({why[:200]})" if why else ""
    raise UserError(
        f"JAX_PLATFORMS: {asked!r} cannot start on this machine{told}; unset "
        "JAX_PLATFORMS to use the best device of the machine, or set it to cpu"
    ) from None


def _check_passed_over(said: Sequence[str]) -> None:
    """Tells of a GPU or TPU that JAX did not take, by what it said.

    Raises:
      UserError: The fault is one that can be mended: the CPU would take days in the meantime.
    """
    gpu = any(os.path.exists(place) for place in _GPUS)
    for text in said:
        fault = _known(_OF_TPUS + (_OF_GPUS if gpu else ()), text)
        if fault:
            raise UserError(
                f"devices: {fault.meaning}; {fault.remedy}, or compute on the CPU with "
                "JAX_PLATFORMS=cpu"
            )
    if gpu and said:
        absent = all("is not installed" in text for text in said)
        why = "JAX for CUDA is not installed (pip install -e '.[cuda12]')" if absent else said[0]
        print(f"note: the GPU of this machine is not used: {why[:200]}", file=sys.stderr)


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Gives what JAX says of backends that it cannot start, and keeps it from the log."""
    logger, said = logging.getLogger("jax._src.xla_bridge"), list[str]()
    level = logger.level

    def pass_on(record: logging.LogRecord) -> bool:
        raised = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() if raised is None else str(raised) or type(raised).__name__
        if raised is None and not re.search("initialize|not installed", text):
            return record.levelno >= logging.WARNING
        # At INFO it also says that kinds of devices which nobody expects are not there.
        if record.levelno > logging.INFO or _known(_OF_TPUS, text):
            said.append(" ".join(text.split()))
        return False

    logger.addFilter(pass_on)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.setLevel(level)
        logger.removeFilter(pass_on)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _known(faults: Sequence[_Fault], text: str) -> _Fault | None:
    """Returns the fault that a text tells of, its meaning with what the text names."""
    for fault in faults:
        found = re.search(fault.words, text, re.IGNORECASE)
        if found:
            return fault._replace(meaning=found.expand(fault.meaning))
    return None
