"""From scans to a table and pages; references from a really trained run; equal outputs of both."""

import errno
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mri_jax import cli, files
from mri_jax.errors import DiskFull, UserError
from mri_jax.models import choice
from mri_jax.prediction import folder, scans
from mri_jax.prediction import predict as predicting
from mri_jax.prediction.model import Distribution
from mri_jax.prediction.predict import Options, predict
from mri_jax.volumes.entries import ScanEntry
from mri_jax.volumes.pipeline import EQUIVALENT, PreprocessSettings, settings_of
from mri_jax.volumes.resampling import Image, coarsen
from mri_jax.volumes.store import StoreInfo, VolumeStore
from mri_jax.volumes.templates import load_template
from tests.networks import apply
from tests.prediction.made import GRID, ensemble, model, store


@pytest.fixture(scope="module")
def made():
    return model()


def table(out):
    return pd.read_csv(out / "predictions.csv", keep_default_na=True)


def test_a_distribution_tells_places_and_not_the_ends(rng):
    values = rng.normal(size=2001)
    found = Distribution.of(values)
    assert found.n == 2001
    assert found.share_below(float(np.median(values))) == pytest.approx(50, abs=0.01)
    assert found.share_below(float(np.percentile(values, 90))) == pytest.approx(90, abs=0.01)
    assert found.share_below(99.0) == 97.5
    assert max(found.percentiles) < values.max()


def test_a_store_is_predicted_in_batches_and_a_bad_volume_is_named(made, tmp_path):
    path = store(tmp_path / "store", count=11, bad=(4,))
    wanted = scans.find(made, [path])
    done = predict(made, wanted, tmp_path / "out", Options("argmax", pages=False, batch=4))
    assert (done.predicted, done.failed) == (10, 1)
    failed = pd.read_csv(tmp_path / "out" / "failed.csv")
    assert failed.loc[0, "subject_id"] == "S004"
    assert "all equal" in failed.loc[0, "reason"]
    rows = table(tmp_path / "out")
    assert not (tmp_path / "out" / "pages").exists()
    assert rows.groupby("stage").size().to_dict() == {"source": 10, "tuned-high": 10}
    # By hand, one network after the other, from the plain module.
    source = rows[rows["stage"] == "source"].set_index("subject_id")
    volumes = VolumeStore(path)
    x = scans.normalise(
        volumes.volume("S007", "m00"), np.asarray(volumes.mask("S007", "m00")), made.normalisation
    )
    margins = []
    for network in made.ensembles[0].networks:
        logits = np.asarray(apply(made.spec, network.variables, x[None, ..., None]))
        margins.append(float(logits[0, 1] - logits[0, 0]))
    row = source.loc["S007"]
    np.testing.assert_allclose(
        row[["fold_0", "fold_1", "fold_2"]].astype(float), expit(margins), atol=1e-5
    )
    assert row["probability"] == pytest.approx(expit(margins).mean(), abs=1e-5)
    assert row["calibrated"] == pytest.approx(expit(np.array(margins) / 1.7).mean(), abs=1e-5)
    assert row["score"] == pytest.approx(np.log(row["probability"] / (1 - row["probability"])))
    assert row["decision"] == ("AD" if row["probability"] > 0.5 else "CN")
    assert rows[rows["stage"] == "tuned-high"]["calibrated"].isna().all()


def test_a_stored_volume_has_a_page_where_asked_for(made, tmp_path):
    wanted = scans.find(made, [store(tmp_path / "store", count=1)])
    predict(made, wanted, tmp_path / "out", Options("argmax", pages=True))
    text = (tmp_path / "out" / "pages" / "S000__m00.html").read_text(encoding="utf-8")
    assert "SIMULATED TRAINING DATA" in text
    # It was drawn on the grid, as the networks' own volumes were.
    assert "never saw a preprocessed scan" not in text
    assert "with the template inside its brain" in text


def test_the_operating_point_decides_and_one_that_was_not_fitted_is_refused(made, tmp_path):
    wanted = scans.find(made, [store(tmp_path / "store", count=2)])
    predict(made, wanted, tmp_path / "out", Options("held-out", pages=False))
    rows = table(tmp_path / "out")
    assert set(rows["decision"]) == {"AD"}  # every score is above -30
    assert set(rows["threshold"]) == {-30.0}
    lacking = model(ensembles=(ensemble(),))
    object.__setattr__(lacking.ensembles[0], "points", lacking.ensembles[0].points[:1])
    with pytest.raises(UserError, match=r"point: 'held-out' could not be fitted for the source"):
        predict(lacking, wanted, tmp_path / "out", Options("held-out", pages=False))


def test_networks_are_computed_by_the_form_that_is_asked_for(made, tmp_path, monkeypatch, capsys):
    asked, resolved = [], choice.resolved
    monkeypatch.setattr(choice, "resolved", lambda forms: asked.append(forms) or resolved(forms))
    folder.save(made, tmp_path / "model")
    given = [str(tmp_path / "model"), str(store(tmp_path / "store", count=2))]

    def predicted(forms):
        out = tmp_path / forms
        assert cli.main(["predict", *given, "--out", str(out), "--forms", forms]) == 0
        return table(out)["probability"]

    plain = predicted("reference")
    assert set(asked) == {"reference"}
    np.testing.assert_allclose(predicted("lanes"), plain, atol=1e-5)
    assert set(asked) == {"reference", "lanes"}
    assert cli.main(["predict", *given, "--out", str(tmp_path / "x"), "--forms", "pallas"]) == 2
    assert "--forms: pallas kernels are for GPUs and TPUs" in capsys.readouterr().err


def test_a_store_of_another_grid_or_preprocessing_is_refused(made, tmp_path):
    real = PreprocessSettings(grid="demo", n4=False).to_json()
    fits = store(tmp_path / "fits", 1, simulated=False, settings=real)
    assert len(scans.find(made, [fits])) == 1
    other = store(tmp_path / "other", 1, simulated=False, settings=real | {"n4": True})
    with pytest.raises(UserError, match=r"other: was preprocessed differently.*n4 is True, not"):
        scans.find(made, [other])
    unstated = store(tmp_path / "unstated", 1, simulated=False, settings={"made": "by hand"})
    with pytest.raises(UserError, match="states no equivalent settings"):
        scans.find(made, [unstated])
    fine = model(grid=GRID.__class__("dev", (96, 112, 96), 2.0, GRID.origin))
    with pytest.raises(UserError, match=r"its grid demo .* of 4 mm is not the model's dev"):
        scans.find(fine, [fits])


def test_an_interruption_keeps_what_was_predicted_and_the_same_command_begins_anew(
    made, tmp_path, monkeypatch
):
    wanted = scans.find(made, [store(tmp_path / "store", 4)])
    calls, judged = [], predicting.judge

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judged(*arguments)

    monkeypatch.setattr(predicting, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(made, wanted, tmp_path / "out", Options("argmax", pages=False, batch=3))
    left = pd.read_csv(tmp_path / "out" / predicting.UNFINISHED)
    assert left["subject_id"].nunique() == 3
    assert not (tmp_path / "out" / predicting.TABLE).exists()
    predict(made, wanted, tmp_path / "out", Options("argmax", pages=False, batch=3))
    assert table(tmp_path / "out")["subject_id"].nunique() == 4
    assert not (tmp_path / "out" / predicting.UNFINISHED).exists()


def test_a_disk_that_fills_up_is_told_and_the_same_command_begins_anew(made, tmp_path, monkeypatch):
    wanted = scans.find(made, [store(tmp_path / "store", 3)])
    write_text, out = files.write_text, tmp_path / "out"

    def full(path, text):
        with files.replacing(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(DiskFull, match=r"pages/.*html: the disk is full$"):
        predict(made, wanted, out, Options("argmax", pages=True))
    assert sorted(p.name for p in out.iterdir()) == [".lock", "pages"]
    monkeypatch.setattr(files, "write_text", write_text)
    assert predict(made, wanted, out, Options("argmax", pages=True)).predicted == 3


def test_a_simulated_store_states_what_raw_scans_must_go_through():
    stated = PreprocessSettings(grid="demo")
    info = StoreInfo(GRID, "float16", True, {"simulation": {}}, {EQUIVALENT: stated.to_json()})
    assert settings_of(info) == stated
    silent = StoreInfo(GRID, "float16", True, {"simulation": {}}, {})
    with pytest.raises(UserError, match="states no equivalent settings"):
        settings_of(silent)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A BIDS tree of two usable heads and one file that is no scan."""
    import nibabel as nib

    template = load_template()
    head = coarsen(Image(template.head, template.affine), 4.0)
    tree = tmp_path_factory.mktemp("bids")
    for number, data in enumerate((head.data, head.data[:, ::-1] * 0 + 5.0, head.data * 1.5)):
        path = tree / f"sub-0{number}" / "anat" / f"sub-0{number}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.asarray(np.round(data), np.int16), head.affine), path)
    return tree


def test_raw_heads_go_from_files_to_pages_and_one_bad_file_does_not_stop_them(
    made, heads, tmp_path, capsys
):
    folder.save(made, tmp_path / "model")
    out = tmp_path / "out"
    code = cli.main(["predict", str(tmp_path / "model"), str(heads), "--out", str(out)])
    assert code == 1
    printed = capsys.readouterr().out
    assert re.search(r"SIMULATED training data: .*: 2 scans, pages in .*, 1 failed", printed)
    failed = pd.read_csv(out / "failed.csv")
    assert failed["subject_id"].tolist() == ["sub-01"]
    assert "every voxel is 5" in failed.loc[0, "reason"]
    assert printed.splitlines()[-1] == "  sub-01_T1w.nii.gz: every voxel is 5"
    rows = table(out)
    assert set(rows["subject_id"]) == {"sub-00", "sub-02"}
    # The same head, brighter: intensities are normalised, so its probability is the same.
    source = rows[rows["stage"] == "source"].set_index("subject_id")["probability"]
    assert source["sub-00"] == pytest.approx(source["sub-02"], abs=0.01)
    assert (rows["correlation"] > 0.9).all()
    assert sorted(p.name for p in (out / "pages").iterdir()) == [
        "sub-00__ses-1.html",
        "sub-02__ses-1.html",
    ]
    text = (out / "pages" / "sub-00__ses-1.html").read_text(encoding="utf-8")
    assert "SIMULATED TRAINING DATA" in text
    assert "its output is not a diagnosis" in text
    assert "The networks never saw a preprocessed scan" in text
    assert "looks unlike the training data" not in text
    assert f"{100 * source['sub-00']:.1f}%" in text
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("kind", "words", "other"),
    [
        ("penultimate", "in the penultimate features", "the response of every filter of the conv"),
        ("layers", "the response of every filter of the conv", "in the penultimate features"),
    ],
)
def test_a_far_scan_is_said_to_be_far_and_in_what(heads, tmp_path, kind, words, other):
    near = ensemble()
    for network in near.networks:
        object.__setattr__(network.features[kind], "typical", 1e-3)
    far = model(ensembles=(near,), quality={})
    path = tmp_path / "<b>x_T1w.nii.gz"
    path.write_bytes((heads / "sub-00" / "anat" / "sub-00_T1w.nii.gz").read_bytes())
    done = predict(far, scans.find(far, [path]), tmp_path / "out", Options("argmax", pages=True))
    assert done.unlike == 1
    (row,) = table(tmp_path / "out").to_dict("records")
    assert (row["unlike_training"], row["far_in"]) == (True, kind)
    assert row[f"distance_{kind}"] > row[f"distance_{kind}_limit"]
    assert row["distance_layers_limit"] == 1.25
    (page,) = (tmp_path / "out" / "pages").iterdir()
    text = page.read_text(encoding="utf-8")
    warning = re.search(r"<li>This scan looks unlike the training data: (.*?)</li>", text)[1]
    assert words in warning
    assert other not in warning
    assert text.count(" far</td>") == 1
    assert "&lt;b&gt;x" in text
    assert "<b>x" not in text


def test_a_scan_beyond_the_limits_of_any_head_is_refused_unless_asked_for(
    made, heads, tmp_path, monkeypatch
):
    monkeypatch.setitem(scans.quality.LIMITS, "brain_ml", (2100.0, 2200.0))
    files_ = [heads / "sub-00" / "anat" / "sub-00_T1w.nii.gz"]
    done = predict(made, scans.find(made, files_), tmp_path / "a", Options("argmax", False))
    assert (done.predicted, done.failed) == (0, 1)
    reason = pd.read_csv(tmp_path / "a" / "failed.csv").loc[0, "reason"]
    assert reason.startswith("fails quality control: brain_ml low")
    asked = Options("argmax", pages=False, despite_quality=True)
    done = predict(made, scans.find(made, files_), tmp_path / "b", asked)
    assert (done.predicted, done.unlike) == (1, 1)
    assert table(tmp_path / "b")["quality_flags"].tolist() == ["brain_ml low"] * 2


def test_two_scans_of_one_name_are_not_mixed_up(made, heads, tmp_path):
    path = heads / "sub-00" / "anat" / "sub-00_T1w.nii.gz"
    wanted = scans.find(made, [path, path])
    assert [bool(entry.problem) for entry in wanted.entries] == [False, True]


def test_two_stores_with_a_scan_of_one_name_are_refused(made, tmp_path):
    first, second = (store(tmp_path / name, count=1) for name in ("one", "two"))
    with pytest.raises(UserError, match=r"two: subject S000, session m00 is in .*one too"):
        scans.find(made, [first, second])


def test_raw_scans_are_refused_where_the_store_states_no_settings(heads):
    silent = model(settings=None)
    with pytest.raises(UserError, match="states no preprocessing; give a store"):
        scans.find(silent, [heads])


def test_pages_of_ids_that_differ_by_case_alone_would_be_one():
    entries = [ScanEntry(name, "s", "", Path(f"{name}.nii")) for name in ("a", "b", "A")]
    assert [entry.problem for entry in scans._once(entries)] == [
        "", "", "the same subject and session, but for case, as a.nii before it",
    ]  # fmt: skip
