"""Training steps compiled for a TPU that is not there: they fit, and move few bytes."""

import importlib.util

import pytest

from benchmarks.ahead_of_time import ENVIRONMENT, PAPER, Case, compiled_step, needs, tpu

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="no compiler for TPUs: pip install -e '.[tpu]'",
    ),
]


@pytest.fixture(scope="module")
def core():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield tpu()


# Compiling is refused where a core's 16 GB do not suffice.
@pytest.mark.parametrize("case", PAPER, ids=str)
def test_every_network_of_the_paper_fits(core, case):
    found = needs(compiled_step(case, core))
    assert found.arguments + found.temporaries < 16e9


def test_a_step_at_paper_needs_little_memory_and_moves_few_bytes(core):
    found = needs(compiled_step(Case("cnn5", 1.0, "paper", 2, "bfloat16"), core))
    assert found.temporaries < 3e9
    assert found.moved < 15e9


def test_a_batch_of_eight_fits(core):
    found = needs(compiled_step(Case("cnn5", 1.0, "paper", 8, "bfloat16"), core))
    assert found.arguments + found.temporaries < 16e9
