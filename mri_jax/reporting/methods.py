"""A methods paragraph that can be pasted into a paper; it says only what this run did."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from mri_jax import __version__, adaptation
from mri_jax.adaptation import field_of, parted
from mri_jax.evaluation.baselines import BASELINES
from mri_jax.evaluation.comparisons import PERMUTATIONS
from mri_jax.evaluation.families import SOURCE, layer_order
from mri_jax.evaluation.intervals import RESAMPLES
from mri_jax.evaluation.variants import of_baselines
from mri_jax.problems import counted
from mri_jax.reporting.analysis import Analysis
from mri_jax.runs.labels import of_option, of_run, of_stage, seen
from mri_jax.settings.study import Study

T = TypeVar("T")

REFERENCES = (
    (
        "Guan H, Wang L, Yao D, Bozoki A, Liu M. Learning transferable 3D-CNN for MRI-based brain "
        "disorder classification from scratch: an empirical study. MLMI 2021."
    ),
    (
        "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated "
        "receiver operating characteristic curves. Biometrics 1988. doi:10.2307/2531595"
    ),
    (
        "Sun X, Xu W. Fast implementation of DeLong's algorithm. IEEE Signal Processing Letters "
        "2014. doi:10.1109/LSP.2014.2337313"
    ),
    (
        "Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning 2003. "
        "doi:10.1023/A:1024068626366"
    ),
    (
        "Hesterberg TC. What teachers should know about the bootstrap. The American Statistician "
        "2015. doi:10.1080/00031305.2015.1089789"
    ),
    (
        "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 1979."
    ),
    (
        "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML "
        "2017. arXiv:1706.04599"
    ),
    (
        "Venkatraman ES, Begg CB. A distribution-free procedure for comparing receiver operating "
        "characteristic curves from a paired experiment. Biometrika 1996. "
        "doi:10.1093/biomet/83.4.835"
    ),
    "Kingma DP, Ba J. Adam: a method for stochastic optimization. ICLR 2015. arXiv:1412.6980",
)


def _shared(analysis: Analysis, asked: Callable[[Study], T]) -> T | None:
    """Something of the studies that all runs agree on; None where they do not, or do not tell."""
    found = [asked(run.study) if run.study else None for run in analysis.runs]
    return found[0] if all(value == found[0] for value in found) else None


_POOLED = (
    "Over sites logits of the AUC were pooled by random effects, the variance of a site being that "
    "of interval B, or of one network on new subjects where that is larger: between sites by "
    "restricted maximum likelihood, the interval of the mean by "
    "Hartung and Knapp's method (2001, doi:10.1002/sim.1009), never narrower than the normal one, "
    "and for a new site the prediction interval of Higgins et al. (2009, "
    "doi:10.1111/j.1467-985X.2008.00552.x) with the number of sites less two as degrees of freedom."
)

_STEPS = {
    "inhomogeneity": {
        "n4": (
            "intensity inhomogeneity was corrected with N4 (Tustison et al. 2010, "
            "doi:10.1109/TMI.2010.2046908)"
        ),
        "none": "intensity inhomogeneity was not corrected",
        "t1-linear": "intensity inhomogeneity had been corrected by Clinica's t1-linear",
    },
    "brain": {
        "template": "the brain was extracted with the template's mask, bent to each head by demons",
        "deepbet": "the brain was extracted with deepbet",
        "mask": "the brain was taken from masks given with the scans",
        "none": "scans came without skull",
    },
    "registration": {
        "affine": "scans were registered to {template} affinely, which removes head size",
        "rigid": "scans were registered to {template} rigidly, which keeps head size",
        "t1-linear": "scans had been registered to an MNI152 template by Clinica's t1-linear",
    },
}
"""What the columns of a store's index say of each scan, in words."""


def _preprocessing(analysis: Analysis) -> str:
    """From scans to volumes, as far as the runs recorded it and agree."""
    found = [run.provenance.preprocessing if run.provenance else None for run in analysis.runs]
    made = found[0]
    if made is None:
        return (
            "Preprocessing (correction of inhomogeneity, brain extraction, registration, grid) is "
            "not recorded in these results."
        )
    if any(one != made for one in found):
        return "Scans of the runs were preprocessed differently; provenance.json of each says how."
    size = " × ".join(map(str, made.shape))
    grid = f"a grid of {size} voxels of {made.spacing:g} mm"
    if "simulation" in made.settings:
        return f"Volumes were simulated without skull on {grid}; no scan was preprocessed."
    if not set(_STEPS) <= set(made.scans):
        return f"Volumes lay on {grid}; how they came to be is not recorded."
    packaged = made.settings.get("template") == "mni152"
    template = "the MNI152 template" if packaged else "a template of the study's own"
    clauses = []
    for step, words in _STEPS.items():
        counts = made.scans[step]
        for value, count in sorted(counts.items(), key=lambda item: -item[1]):
            clause = words.get(value, f"{step}: {value}").format(template=template)
            clauses.append(clause + (f" ({counted(count, 'scan')})" if len(counts) > 1 else ""))
    text = "; ".join(clauses)
    return f"{text[0].upper()}{text[1:]}; volumes lay on {grid}."


def _stopping(analysis: Analysis) -> str:
    """Returns when training of source networks ended: as planned, else by the configs."""
    plan = analysis.plan
    names = ("min_epochs", "max_epochs", "patience")
    delta = _shared(analysis, lambda study: study.train.min_delta)
    limits = _shared(analysis, lambda s: (s.train.min_epochs, s.train.max_epochs, s.train.patience))
    values = list(limits or ())
    if set(names) <= set(plan.columns):
        rows = plan.loc[plan["stage"].eq("source") & plan["max_epochs"].notna(), list(names)]
        planned = rows.drop_duplicates().to_numpy(float)
        if len(planned) > 1:
            return "Networks stopped by rules that differ between them; plan.json has each."
        values = [int(value) for value in planned[0]] if len(planned) else values
    if not values or delta is None:
        return "Networks stopped by rules that differ between the runs; config.json has each."
    least, most, patience = values
    if least == most:
        return f"Training ran {most} epochs."
    return (
        "Training stopped when the loss on the held-out fold had not fallen by more than "
        f"{delta:g} for {patience} epochs, after at least {least} and at most {most} epochs."
    )


def _narrow(study: Study) -> str | None:
    """Returns the type of activations where it is not float32."""
    return None if study.model.dtype == "float32" else study.model.dtype


def _training(analysis: Analysis, tuned: bool) -> list[str]:
    """Returns how the networks were trained, as far as the configs say it and agree."""
    clauses = [
        ("learning rate {:g}", _shared(analysis, lambda study: study.train.learning_rate)),
        ("batches of {}", _shared(analysis, lambda study: study.train.batch)),
        ("weight decay {:g}", _shared(analysis, lambda study: study.train.weight_decay) or None),
        ("at most {} epochs", _shared(analysis, lambda study: study.train.max_epochs)),
        ("activations in {}", _shared(analysis, _narrow)),
    ]
    known = [words.format(value) for words, value in clauses if value is not None]
    if not known:
        return []
    said = f"Networks were trained with Adam [9] ({', '.join(known)}); the epoch with the lowest "
    said += f"loss on the held-out fold was kept. {_stopping(analysis)}"
    if _shared(analysis, lambda study: study.data.normalisation) == "zscore":
        said += " Intensities were standardised within the brain of each scan"
        clip = _shared(analysis, lambda study: study.data.clip)
        said += f", clipped at percentiles {clip[0]:g} and {clip[1]:g}." if clip else "."
    rate = _shared(analysis, lambda study: study.finetune.learning_rate)
    epochs = _shared(analysis, lambda study: study.finetune.epochs)
    if tuned and rate is not None and epochs is not None:
        fixed = _shared(analysis, lambda study: study.finetune.stopping) == "fixed"
        said += f" Fine-tuning ran {'' if fixed else 'at most '}{epochs} epochs at a learning rate "
        said += f"of {rate:g}, and chose nothing on the test subjects."
    software = analysis.runs[0].provenance
    version = software.versions.get("jax") if software else None
    jax = f", JAX {version}" if version else ""
    said += f" Software: mri_jax {__version__}{jax}."
    return [said]


_OPTIONS = {
    "se": "Hu et al. 2018, arXiv:1709.01507",
    "spatial": "Woo et al. 2018, arXiv:1807.06521",
    "cbam": "Woo et al. 2018, arXiv:1807.06521",
    "map": "Jin et al. 2020, doi:10.1002/advs.202000675",
    "instance": "Ulyanov et al. 2016, arXiv:1607.08022",
    "group": "Wu & He 2018, arXiv:1803.08494",
    "residual": "He et al. 2016, arXiv:1512.03385",
}
"""Where the options of networks come from."""


def _options(analysis: Analysis, runs: Iterable[str]) -> list[str]:
    """Returns in what networks differ from those of the paper, but for depth and width."""
    found = (o for run in runs for o in analysis.method(run, SOURCE).variant.options if o)
    cited = [f"{of_option(o)} ({_OPTIONS.get(o.split('-')[0], 'of another version')})"
             for o in dict.fromkeys(found)]  # fmt: skip
    return [f"What the paper's networks do not have: {'; '.join(cited)}."] if cited else []


def _rate(field: str, study: Study) -> float:
    return getattr(study.adaptation, field)


def _adapted(analysis: Analysis, stages: Sequence[str]) -> list[str]:
    """Returns what each method of adaptation is, saw and needed."""
    told = []
    for stage in sorted(stages, key=layer_order):
        method = adaptation.of_stage(stage)
        if method is None:
            continue
        shown = "with the labels of that part" if method.target_labels else "without labels"
        shown = ", ".join([shown, *seen(stage)])
        cited = f", {method.cited}" if method.cited else ""
        shared = [
            (rate, _shared(analysis, partial(_rate, field_of(method, rate))))
            for rate in method.rates
        ]
        known = [f"{rate.name.replace('_', ' ')} {v:g}" for rate, v in shared if v is not None]
        numbers = f"; {', '.join(known)}" if known else ""
        told.append(f"{method.shown}: {method.about} ({shown}{cited}{numbers})")
    if not told:
        return []
    fixed = (
        "Those without labels chose nothing by a label of the target: their rates were fixed "
        "beforehand, and those that train on the source kept the epoch of lowest loss on the "
        "held-out source fold."
    )
    return [f"Methods of adaptation: {'; '.join(told)}. {fixed}"]


_DRAWN_BY = {
    "tpe": "by a tree-structured Parzen estimator (Bergstra et al. 2011)",
    "random": "at random",
    "grid": "from a grid",
}
"""How a sampler of `settings.search` draws trials, in words."""
_OPTUNA = "doi:10.1145/3292500.3330701"


def _searched(analysis: Analysis) -> list[str]:
    """Returns how architecture and training were searched, where the runs agree on it."""
    search = _shared(analysis, lambda study: study.search)
    if search is None or not search.trials or not any(v.chosen for v in analysis.variants.values()):
        return []
    beside = f", {search.trials} random ones beside" if search.beside else ""
    how = f"{_DRAWN_BY[search.sampler]} with Optuna (Akiba et al. 2019, {_OPTUNA}){beside}"
    judged = ", ".join(search.objectives)
    return [
        (
            f"Architecture and training were searched in {search.trials} trials drawn {how}, over "
            f"{len(search.space)} fields. One of {search.parts} stratified parts of the source's "
            f"subjects was set aside before the first trial; each trial trained {search.folds} "
            f"networks by cross-validation over the others and was judged by {judged} on its "
            "held-out folds. The winner's held-out score is that of its networks on the part set "
            "aside. It was then trained as the other networks were and shown to the targets once."
        )
    ]


def methods_paragraphs(analysis: Analysis) -> list[str]:
    """Paragraphs of plain text, with bracketed numbers into `REFERENCES`."""
    rows = analysis.predictions
    networks = rows[~of_baselines(rows)]
    folds = networks["fold"].nunique()
    cohorts = ", ".join(dict.fromkeys(networks.loc[networks["split"].eq("test"), "cohort"]))
    source = ", ".join(dict.fromkeys(networks.loc[networks["split"].eq("validation"), "cohort"]))
    apart = networks["left_out"].ne("").any()
    if apart:
        source, cohorts = "all sites but one", f"that site, each of {cohorts} in turn"
    methods = [analysis.method(run, SOURCE).wherever for run in networks["run"].unique()]
    named = dict.fromkeys(map(of_run, methods))
    runs = "; ".join(named)
    kind = "simulated scans" if analysis.simulated else "T1-weighted scans"
    paragraphs = []
    first = f"3D convolutional networks ({runs}) were trained from scratch on {kind}"
    first += f" of {source}" if source else ""
    first += f" after Guan et al. [1], as {counted(folds, 'network')} by cross-validation over "
    first += "subjects, and"
    first += f" tested on {cohorts}." if cohorts else " evaluated on the held-out folds."
    stages = sorted({parted(s)[0] for s in rows["stage"].unique() if s != "source"})
    if stages:
        repeats = networks["repeat"].nunique()
        parts = _shared(analysis, lambda study: study.finetune.parts)
        share = f"one of {parts} stratified parts" if parts else "a stratified part"
        cohort = _shared(analysis, lambda study: study.finetune.cohort) or "the target"
        cohort = "the site left out" if apart else cohort
        named_ways = "; ".join(of_stage(s) for s in sorted(stages, key=layer_order))
        done, made = "fine-tuned on", "tuned"
        if any(adaptation.of_stage(stage) for stage in stages):
            done, made = "adapted to", "adapted"
        first += (
            f" Networks were {done} {share} of {cohort} ({named_ways}); "
            f"source and {made} networks are compared on the same remaining subjects"
            + (f", over {repeats} disjoint parts." if repeats > 1 else ".")
        )
    paragraphs += [
        first,
        *_options(analysis, networks["run"].unique()),
        *_adapted(analysis, stages),
        *_searched(analysis),
        _preprocessing(analysis),
    ]
    ways = [adaptation.of_stage(stage) for stage in stages]
    tuned = any(m is None or (m.target_labels and m.start != adaptation.SCRATCH) for m in ways)
    paragraphs += _training(analysis, tuned)
    paragraphs.append(
        "Scores are the mean and standard deviation (n - 1) over networks. Two intervals are given "
        "at the 95% level. Interval A (these networks, new subjects) uses DeLong's variance [2] in "
        "its fast form [3], with the covariance of the networks, on the logit scale for the AUC, "
        f"and a class-stratified bootstrap over subjects ({RESAMPLES} resamples, expanded "
        "percentiles [5]) for accuracy, balanced accuracy, sensitivity and specificity. Interval B "
        "(new subjects and retrained networks) adds the variance between networks, corrected for "
        "shared training subjects [4]."
    )
    if apart:
        paragraphs.append(_POOLED)
    paragraphs.append(
        "Methods were compared on the same subjects by a paired permutation test of the mean over "
        f"networks ({PERMUTATIONS} permutations; of ranks for the AUC [8]), by DeLong's paired "
        "test for the AUC and by McNemar's exact test for the ensembles' decisions; held-out "
        "source folds by the corrected resampled t-test [4]. P-values were adjusted by Holm's "
        "method [6] within each table and metric. Decisions are at argmax unless a table says "
        "otherwise; temperatures [7] and other thresholds were fitted on held-out source folds, or "
        "on the fine-tuning subjects for networks that had not been trained on them, never on test "
        "subjects."
    )
    present = set(rows["family"])
    labels = [label for b in BASELINES for label in b.labels if label in present]
    words = [b.words for b in BASELINES if b.words and present & set(b.labels)]
    if labels:
        said = "were fitted on the same training folds and tested on the same subjects"
        paragraphs.append(f"Baselines ({', '.join(labels)}) {'; '.join([said, *words])}.")
    return paragraphs
