"""Fixtures shared by every room; arrays have unequal dimensions so that a swapped axis shows."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
# test.sh sets it for the tests' own process; the commands under test print no such warnings.
os.environ.pop("PYTHONWARNDEFAULTENCODING", None)
# gcsfs reads it when it is imported: it would ask by gRPC, which `tests.bucket` does not speak,
# whether a bucket has folders.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

# How long an example takes is no property of what is tested where other processes compute too.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Looking for cycles among the objects that JAX and pandas keep takes a twentieth of the suite's
# time: once in 50,000 new objects, not in 700. What a test needs collected, it collects itself.
gc.set_threshold(50_000)

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="native kernels need a C++ compiler",
)


def pytest_configure(config: pytest.Config) -> None:
    """Have JAX keep compiled programs for as long as this process tests.

    Many tests build one program anew. Commands under test share the folder where they have none of
    their own. Each process has its own, because JAX writes such files in place.
    """
    folder = tempfile.TemporaryDirectory(prefix="compiled-")
    config.add_cleanup(folder.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """``--dist loadfile`` begins with what takes longest (`tests.scheduling`)."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.scheduling import LongestFirst

    config.option.loadscopereorder = False  # it would begin with the files of most tests
    return LongestFirst(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.scheduling import place

        items.sort(key=lambda item: place(item.nodeid))


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

    everybodys = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        everybodys = everybodys.parent
    with FileLock(everybodys / "small.lock"):
        if not (everybodys / "small.done").exists():
            make_run(everybodys / "small")
            (everybodys / "small.done").touch()
    # A copy, because tests add to its stages.
    own = tmp_path_factory.mktemp("small")
    shutil.copytree(everybodys / "small", own, dirs_exist_ok=True)
    return own / "run"
