"""The model card: what the networks learned from, how they did, what they are not for."""

from collections.abc import Iterator

from mri_jax.evaluation.delong import Interval
from mri_jax.prediction.model import FAR_PERCENT, Ensemble, PortableModel, TrainingGroup
from mri_jax.problems import counted
from mri_jax.runs.trained import SOURCE
from mri_jax.showing import simulated
from mri_jax.showing.forms import grid
from mri_jax.showing.numbers import estimated
from mri_jax.showing.table import from_rows

DISCLAIMER = (
    "This is research software. It is not a medical device, and its output is not a diagnosis."
)


def card(model: PortableModel) -> str:
    """Returns the card in Markdown, filled from the run; names no subject."""
    return "\n".join(_lines(model)).rstrip() + "\n"


def _lines(model: PortableModel) -> Iterator[str]:
    word = f" ({simulated.WORD})" if model.simulated else ""
    yield f"# Model card: {model.name}, {model.positive} against {model.negative}{word}\n"
    yield f"**{DISCLAIMER}**\n"
    yield from (f"- {note}" for note in model.notes)
    yield "\n## What it is\n"
    shape = " x ".join(map(str, model.grid.shape))
    ensembles = (f"{e.stage} ({counted(len(e.networks), 'network')})" for e in model.ensembles)
    yield (
        f"Ensembles of 3D-CNNs, each trained with another fold of the training cohort held out: "
        f"{', '.join(ensembles)}. Input: "
        f"T1-weighted volumes of {shape} voxels, {model.grid.spacing:g} mm, "
        f"{model.normalisation.method} intensities inside the brain. Output: the probability of "
        f"{model.positive}, as the mean over an ensemble's networks."
    )
    yield "\n## Training data\n"
    groups = [(g.cohort, g.diagnosis, g.n, _ages(g)) for g in model.training]
    header = ("cohort", "diagnosis", f"scans{word}", "age, median (5% to 95%)")
    yield grid(from_rows("training", "Training data", header, groups))
    if any(e.stage != SOURCE for e in model.ensembles):
        yield (
            "\nThe stages named `tuned-...` were then fine-tuned on a part of the target cohort "
            "(its size stands under calibration below). Their scores on that cohort are of its "
            "other scans: same site, other people."
        )
    yield f"\n## How it did{word}\n"
    for ensemble in model.ensembles:
        yield from _performance(ensemble, word)
    yield "\n## Preprocessing\n"
    yield from _preprocessing(model)
    yield "\n## Limits\n"
    yield "- Scores hold for scans like those of the cohorts above, and for no other disorder."
    yield (
        f"- A scan counts as unlike the training data when a figure of quality is an outlier, or "
        f"when the median over the networks of its Mahalanobis distance exceeds the "
        f"{FAR_PERCENT:g}th percentile of held-out training scans, in penultimate features or in "
        "the moments of the conv layers' channels. A scan within both limits can still be unlike "
        "them; about 1 ordinary scan in 20 is beyond one."
    )
    yield (
        "- Intervals are those of the tested subjects alone; another site adds what they cannot "
        "know. Calibration and thresholds come from the cohorts named here and move with "
        "prevalence, scanner and age."
    )
    yield (
        "- The folder holds a digest of every training volume, by which such a scan is recognised: "
        "whoever has a scan and preprocesses it alike can tell that it was trained on."
    )
    yield "- Neither fairness between groups of people nor clinical use has been studied."
    yield "\n## Made by\n"
    yield f"mri_jax {model.provenance.mri_jax}. Files and checksums: `checksums.json`."


def _performance(ensemble: Ensemble, word: str) -> Iterator[str]:
    yield f"### {ensemble.stage}\n"
    tested = [
        (t.cohort, f"{t.n_positive} + {t.n_negative}", with_limits(t.auc)) for t in ensemble.tested
    ]
    header = (f"tested on{word}", "positive + negative", "AUC, %")
    yield grid(from_rows("auc", "AUC", header, tested))
    for point in ensemble.points:
        yield (
            f"\nOperating point `{point.name}` (logit above {point.threshold:.3g}): {point.basis}\n"
        )
        rates = [
            (r.cohort, with_limits(r.sensitivity.share), with_limits(r.specificity.share))
            for r in point.rates
        ]
        header = (f"tested on{word}", "sensitivity, %", "specificity, %")
        yield grid(from_rows("rates", "Rates", header, rates))
    yield f"\n{ensemble.calibration}\n"


def with_limits(interval: Interval) -> str:
    """Returns ``81.2 [70.3, 88.9]``, in percent."""
    return estimated(interval.estimate, interval.low, interval.high)


def _ages(group: TrainingGroup) -> str:
    """Returns ``71 (58 to 84)``, in years: the median, and the 5th and 95th percentile."""
    if group.ages is None:
        return "unknown"
    low, middle, high = group.ages
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def _preprocessing(model: PortableModel) -> Iterator[str]:
    if model.settings is None:
        yield "The run's store states no settings, so that raw scans cannot be used."
        return
    yield from (
        f"- {name}: {value}"
        for name, value in model.settings.to_json().items()
        if name != "template_sha256" and value != ""
    )
    if model.never_raw:
        yield (
            "- The training volumes were simulated on the grid and never went through these steps; "
            "the simulation states them as equivalent."
        )
