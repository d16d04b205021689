import numpy as np
import pytest

from mri_jax.cohort.table import read_table
from mri_jax.errors import UserError
from mri_jax.simulation import CohortRequest, SimulationSettings, simulate
from mri_jax.volumes.store import VolumeStore

FEW = SimulationSettings("demo", 3, (CohortRequest("ADNI1", {"AD": 2, "CN": 1}),))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate(FEW, tmp_path_factory.mktemp("few") / "out", progress=False)


def test_store_and_table_agree_and_say_simulated(made):
    table, store = read_table(made.table_path), VolumeStore(made.store_path)
    assert store.info.simulated
    assert store.info.dtype == "float16"
    assert set(zip(table.subject_id, table.session_id, strict=True)) == set(store.index.index)
    for subject, session in store.index.index:
        volume, mask = store.volume(subject, session), store.mask(subject, session)
        assert volume.dtype == np.float16
        assert (volume[~mask] == 0).all()
        assert 1_500 < mask.sum() * 4**3 / 1000 < 2_300


def test_a_finished_folder_is_returned_at_once_and_other_settings_are_refused(made):
    before = made.table_path.stat().mtime
    assert simulate(FEW, made.table_path.parent, progress=False) == made
    assert made.table_path.stat().mtime == before
    other = SimulationSettings("demo", 4, FEW.cohorts)
    with pytest.raises(UserError, match="seed is 3, not 4"):
        simulate(other, made.table_path.parent, progress=False)
