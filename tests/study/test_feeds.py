"""Volumes as stages want them: the histogram's reference comes from training scans alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.planning.planner import make_plan
from mri_jax.study.feeds import Feeds, Volumes
from mri_jax.study.run import run
from mri_jax.study.running import Running
from mri_jax.study.scans import open_catalogue
from mri_jax.training.checkpoints import load_params
from mri_jax.training.folds import Steps
from mri_jax.training.wave import Wave
from mri_jax.volumes.normalise import training_reference
from mri_jax.volumes.store import VolumeStore
from tests import studies
from tests.tiny import SMALL_MODEL, make_cohorts

MATCHED = {"data__normalisation": "histogram", "data__histogram_reference": "training"}
SHORT = {
    "train__folds": 2, "train__min_epochs": 1, "train__max_epochs": 1, "finetune__epochs": 1,
    "finetune__inner_folds": 0, "finetune__statistics": ("keep",), "targets": ("ADNI2",),
}  # fmt: skip


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    return make_cohorts(tmp_path_factory.mktemp("cohorts"), subjects=6, cohorts=("ADNI1", "ADNI2"))


def study_of(cohorts, **overrides):
    small = {f"model__{field}": value for field, value in SMALL_MODEL.items()}
    places = {"data__cohort": str(cohorts[0]), "data__store": str(cohorts[1])}
    return studies.study("finetune_high", **{**small, **places, **SHORT, **overrides})


def volumes_of(cohorts, folder, **overrides):
    study, store = study_of(cohorts, **overrides), VolumeStore(cohorts[1])
    catalogue = open_catalogue(cohorts[0], store, study)
    volumes = Volumes(store, catalogue, study.data.intensities, folder, threads=1)
    return study, volumes, make_plan(study, catalogue)


def test_the_reference_is_the_mean_histogram_of_a_folds_training_scans(cohorts, tmp_path):
    _, volumes, plan = volumes_of(cohorts, tmp_path, **MATCHED)
    sources = [s for s in plan.stages() if s.kind == "source"]
    found = [volumes.normalisation(stage.reference).reference for stage in sources]
    assert found[0] != found[1]
    keys = [volumes.catalogue.keys[row] for row in sources[0].train.rows]
    assert not set(sources[0].train.rows) & set(sources[0].validation.rows)
    scans = [(volumes.store.volume(*k), np.asarray(volumes.store.mask(*k))) for k in keys]
    np.testing.assert_allclose(found[0], training_reference(scans), rtol=1e-12)
    for stage in plan.stages():
        if stage.kind == "tune":
            assert stage.reference == stage.parent.train
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_a_kept_reference_is_as_it_was_written_or_of_an_earlier_version(cohorts, tmp_path):
    _, volumes, plan = volumes_of(cohorts, tmp_path, **MATCHED)
    reference = next(s for s in plan.stages() if s.kind == "source").reference
    found = volumes.normalisation(reference)
    (kept,) = tmp_path.glob("*.json")
    note = files.read_json(kept)
    note["histogram"][5] += 0.5
    files.write_json(kept, note)
    with pytest.raises(UserError, match="is not as it was written"):
        volumes.normalisation(reference)
    files.write_json(kept, list(found.reference))
    assert volumes.normalisation(reference) == found


def test_feeds_of_two_references_are_two_feeds(cohorts, tmp_path):
    study, volumes, plan = volumes_of(cohorts, tmp_path, **MATCHED)
    first, second = (s for s in plan.stages() if s.kind == "source")
    feeds = Feeds(volumes, study.data, Wave((jax.local_devices()[0],)))
    rows = [0, 3]
    feed = feeds.of(rows, first.reference)
    assert feeds.of([3], first.reference) is feed
    other = feeds.of(rows, second.reference)
    assert other is not feed
    read = [volumes.reader(stage.reference).read(3) for stage in (first, second)]
    assert np.abs(read[0] - read[1]).max() > 0


def test_networks_remember_the_reference_of_their_fold(cohorts, tmp_path):
    run(
        study_of(cohorts, **MATCHED, baselines__age_sex=False), tmp_path / "run",
        tmp_path / "stages", Running(say=lambda _: None, report=False),
    )  # fmt: skip
    stages = (
        sorted((tmp_path / "stages").glob("source-*")),
        sorted((tmp_path / "stages").glob("tune-*")),
    )
    kept = [
        {tuple(load_params(folder).info["normalisation"]["reference"]) for folder in found}
        for found in stages
    ]
    assert len(kept[0]) == 2
    assert kept[0] == kept[1]


def test_a_reference_without_histogram_matching_is_refused(cohorts):
    with pytest.raises(UserError, match=r"data\.histogram_reference: 'training' needs"):
        study_of(cohorts, data__histogram_reference="training")


def test_devices_of_a_cpu_hold_the_volumes_in_one_place(cohorts, tmp_path):
    _, volumes, _ = volumes_of(cohorts, tmp_path)
    held = volumes.reader().load(2, (0, 3, 1))
    placed = jax.device_put(held[None], jax.local_devices(backend="cpu")[0])
    assert placed.unsafe_buffer_pointer() == held.ctypes.data
    np.testing.assert_array_equal(held[1], volumes.reader().read(3))


def test_feeds_know_alone_where_a_scan_of_the_catalogue_lies(cohorts, tmp_path):
    study, volumes, _ = volumes_of(cohorts, tmp_path)
    wave, reader, rows = Wave((jax.local_devices()[0],)), volumes.reader(), [17, 2, 9, 21]
    held, streamed = (
        Feeds(volumes, replace(study.data, placement=placement), wave).of(rows)
        for placement in ("device", "stream")
    )
    asked = np.array([[[21, 2], [9, 21]]])
    step = Steps(np.array([[[9, 17, 9]]]), *np.zeros((2, 1, 1, 3)), np.ones((1, 1), bool))
    for feed in (held, streamed):
        for batch, (arrays, places) in zip(asked[0], feed.batches(asked, wave), strict=True):
            found = np.asarray(arrays)[0][places[0]]
            np.testing.assert_array_equal(found, [reader.read(row) for row in batch])
        ((arrays, part),) = feed.chunks(step, 0, wave)
        found = np.asarray(arrays)[0][part.row[0, 0]]
        np.testing.assert_array_equal(found, [reader.read(row) for row in (9, 17, 9)])
    with pytest.raises(IndexError, match="lack a scan"):
        next(held.batches(np.array([[[3]]]), wave))
