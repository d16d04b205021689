from pathlib import Path

import synthetic_run

from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.methods import REFERENCES, methods_paragraphs
from tests.reporting.recorded import recorded, rewritten

PREPROCESSED = {
    "shape": [96, 112, 96],
    "spacing": 2.0,
    "dtype": "float16",
    "settings": {"brain": "deepbet", "n4": True, "template": "mni152"},
    "scans": {
        "inhomogeneity": {"n4": 40},
        "brain": {"deepbet": 40},
        "registration": {"affine": 40},
    },
}


def test_the_methods_say_what_the_configs_agree_on(tmp_path):
    train = {"learning_rate": 0.0003, "batch": 2, "weight_decay": 0.0}
    tune = {"learning_rate": 1e-05, "epochs": 20, "stopping": "fixed", "parts": 5}
    folders = []
    for name, epochs in (("one", 30), ("two", 50)):
        folder = synthetic_run.write_run(
            tmp_path / name,
            stages=("tuned-high",),
            cohorts={"ADNI1": (9, 11), "ADNI2": (10, 10)},
            baselines=(),
        )
        rewritten(folder, {"train": train | {"max_epochs": epochs}, "finetune": tune})
        folders.append(str(folder))
    single = " ".join(methods_paragraphs(analyse(load_runs(folders[:1]))))
    assert "Adam [9] (learning rate 0.0003, batches of 2, at most 30 epochs)" in single
    assert "on one of 5 stratified parts" in single
    assert "ran 20 epochs at a learning rate of 1e-05" in single
    both = " ".join(methods_paragraphs(analyse(load_runs(folders))))
    assert "(learning rate 0.0003, batches of 2);" in both, "the runs' epochs differ"
    assert all(f"[{n}]" in single for n in range(1, len(REFERENCES) + 1))


def test_methods_cite_what_the_papers_networks_do_not_have(tmp_path):
    folder = synthetic_run.write_run(
        tmp_path / "run",
        runs=("cnn5-w1", "cnn5-se-w1", "cnn5-map-1-3-w1"),
        cohorts={"ADNI1": (9, 11), "ADNI2": (10, 10)},
        baselines=(),
    )
    said = " ".join(methods_paragraphs(analyse(load_runs([str(folder)]))))
    assert "networks (CNN-5; CNN-5 with squeeze and excitation; CNN-5 with a weight" in said
    assert (
        "What the paper's networks do not have: squeeze and excitation (Hu et al. 2018, "
        "arXiv:1709.01507); a weight for each position after blocks 1, 3 (Jin et al. 2020, "
        "doi:10.1002/advs.202000675)."
    ) in said


def test_methods_say_how_scans_came_to_be_volumes(tmp_path):
    methods, _ = recorded(tmp_path / "whole", {"preprocessing": PREPROCESSED})
    assert (
        "Intensity inhomogeneity was corrected with N4 (Tustison et al. 2010, "
        "doi:10.1109/TMI.2010.2046908); the brain was extracted with deepbet; scans were "
        "registered to the MNI152 template affinely, which removes head size; volumes lay on a "
        "grid of 96 × 112 × 96 voxels of 2 mm."
    ) in methods
    steps = {
        "inhomogeneity": {"none": 30, "t1-linear": 10},
        "brain": {"none": 40},
        "registration": {"rigid": 30, "t1-linear": 10},
    }
    mixed = PREPROCESSED | {"scans": steps, "settings": {"template": "/a/head.nii"}}
    methods, _ = recorded(tmp_path / "mixed", {"preprocessing": mixed})
    assert "inhomogeneity was not corrected (30 scans); intensity inhomogeneity had been" in methods
    assert "to a template of the study's own rigidly, which keeps head size (30 scans);" in methods
    assert "/a/head.nii" not in methods
    made = PREPROCESSED | {"scans": {}, "settings": {"simulation": {"seed": 1}}}
    methods, _ = recorded(tmp_path / "made", {"preprocessing": made})
    assert "simulated without skull on a grid of 96 × 112 × 96 voxels of 2 mm" in methods
    methods, _ = recorded(tmp_path / "old", {})
    assert "registration, grid) is not recorded in these results." in methods


def test_methods_state_the_stopping_rule_that_was_planned(tmp_path):
    train = {"train": {"min_epochs": 12, "max_epochs": 20, "patience": 5, "min_delta": 1e-3,
                       "learning_rate": 3e-4}}  # fmt: skip
    said = (
        "had not fallen by more than 0.001 for {} epochs, after at least {} and at most {} epochs."
    )
    methods, _ = recorded(tmp_path / "config", {}, train)
    assert said.format(5, 12, 20) in methods
    planned = {"min_epochs": 36, "max_epochs": 48, "patience": 15}
    methods, _ = recorded(tmp_path / "plan", {}, train, planned)
    assert said.format(15, 36, 48) in methods
    fixed = {"min_epochs": 36, "max_epochs": 36, "patience": 15}
    methods, _ = recorded(tmp_path / "fixed", {}, train, fixed)
    assert "Training ran 36 epochs." in methods
    folders = [str(tmp_path / name / "run") for name in ("config", "fixed")]
    rewritten(Path(folders[1]), {"train": {"min_delta": 0.5}})
    both = " ".join(methods_paragraphs(analyse(load_runs(folders))))
    assert "stopped by rules that differ between the runs" in both


def test_a_config_of_another_version_is_named_and_not_used(tmp_path):
    methods, warned = recorded(tmp_path, {}, {"train": {"lerning_rate": 0.5}})
    assert "Adam" not in methods
    assert (
        "config.json cannot be read as a study of this version, and nothing of it is used" in warned
    )
    assert "config.train.lerning_rate: no such field" in warned
