import pytest
import synthetic_run

from mri_jax.reporting.analysis import analyse, load_runs
from tests.reporting.rendering import unrendered as within


@pytest.fixture
def unrendered():
    """See `tests.reporting.rendering`; for tests of tables and words."""
    with within():
        yield


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    """The analysis of a run of source networks and of some with the last layers tuned."""
    folder = tmp_path_factory.mktemp("runs") / "high"
    synthetic_run.write_run(folder, stages=("tuned-high",), arrays=True)
    return analyse(load_runs([str(folder)]))
