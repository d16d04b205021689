"""Fixtures shared by every room; arrays have unequal dimensions so that a swapped axis shows."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
# test.sh sets it for the tests' own process; the commands under test print no such warnings.
os.environ.pop("PYTHONWARNDEFAULTENCODING", None)

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="native kernels need a C++ compiler",
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20211)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans beside the checkout; they are not part of the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data (real scans) is absent")
    return folder


@pytest.fixture(scope="session")
def reference_results() -> Path:
    """Float64 results of an independent implementation, beside the checkout."""
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/reference is absent")
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A finished run with real networks; see `tests.small_run.make_run`."""
    from tests.small_run import make_run

    return make_run(tmp_path_factory.mktemp("small"))
