"""What people call the methods of a run, beside the names that tables and files have."""

from mri_jax import adaptation
from mri_jax.adaptation import TRANSDUCTIVE, UNDIAGNOSED, parted
from mri_jax.evaluation.baselines import BASELINES
from mri_jax.evaluation.families import SOURCE as SOURCE
from mri_jax.evaluation.families import Method
from mri_jax.evaluation.variants import CNN, RANDOM, SEARCHED
from mri_jax.settings.sections import LAYER_SETS

_OPTIONS = {
    "se": "squeeze and excitation",
    "spatial": "spatial attention",
    "cbam": "channel and spatial attention",
    "map": "a weight for each position",
    "instance": "instance normalisation",
    "group": "group normalisation",
    "residual": "residual blocks",
}
_CHOSEN = {SEARCHED: "the search's winner", RANDOM: "the best random trial"}
_TUNED, _ADAPTED = "tuned-", "-adapt"


def label(method: Method) -> str:
    """Returns a method's name for people.

    A method of which nothing is known, as in results of an earlier version, keeps its own name.

    >>> from mri_jax.evaluation.variants import Variant
    >>> cnn, age = Variant("cnn", "", 5, 4.0), Variant("baseline-age-sex")
    >>> label(Method("cnn5-w4", "tuned-high-adapt", cnn))
    "CNN-5, width 4, last conv and FC layers fine-tuned, target's statistics"
    >>> label(Method("cnn5-w4", "source", cnn)), label(Method("baseline-age-sex", "source", age))
    ('CNN-5, width 4, source', 'age and sex')
    """
    variant = method.variant
    if variant.is_baseline:
        stage = "" if method.stage == SOURCE else f", {of_stage(method.stage)}"
        return of_run(method) + stage
    if variant.family != CNN:
        return of_run(method) if method.stage == SOURCE else method.name
    return f"{of_run(method)}, {of_stage(method.stage)}"


def of_run(method: Method) -> str:
    """Returns what people call a method's run, whatever its stage.

    >>> from mri_jax.evaluation.variants import Variant
    >>> of_run(Method("cnn7-w2", "tuned-low", Variant("cnn", "CNN-AD1", 7, 2.0)))
    'CNN-7, width 2, trained on CNN-AD1'
    >>> of_run(Method("", "source", Variant("cnn", "", 5, 1.0, "spatial-4")))
    'CNN-5 with spatial attention after block 4'
    >>> of_run(Method("", "source", Variant("cnn", "", 5, 4.0, "se")))
    'CNN-5 with squeeze and excitation, width 4'
    >>> of_run(Method("", "source", Variant("cnn", "", 5, 1.0, "", "group", "residual")))
    'CNN-5 with group normalisation and residual blocks'
    >>> of_run(Method("", "source", Variant("cnn", "", 4, 2.0, chosen="searched")))
    "the search's winner (CNN-4, width 2)"
    >>> of_run(Method("", "source", Variant("cnn", "", 5, 1.0, left_out="NYU")))
    'CNN-5 without NYU'
    """
    variant = method.variant
    trained = f", trained on {variant.source}" if variant.source else ""
    trained += f" without {variant.left_out}" if variant.left_out else ""
    if variant.is_baseline:
        return _baseline(variant.family) + trained
    if variant.family != CNN:
        return method.run
    width = f", width {variant.width:g}" if variant.width not in (None, 1.0) else ""
    options = " and ".join(map(of_option, filter(None, variant.options)))
    kind = f" with {options}" if options else ""
    told = f"CNN-{variant.depth}{kind}{width}{trained}"
    return f"{_CHOSEN[variant.chosen]} ({told})" if variant.chosen in _CHOSEN else told


def of_option(option: str) -> str:
    """Returns what people call an option of networks: a kind of attention, of norm, of blocks.

    >>> of_option("spatial-3-4")
    'spatial attention after blocks 3, 4'
    """
    kind, *blocks = option.split("-")
    where = f" after block{'s' * (len(blocks) > 1)} {', '.join(blocks)}" if blocks else ""
    return f"{_OPTIONS.get(kind, kind)}{where}"


def pair(first: Method, second: Method) -> str:
    """Returns what a difference between two methods is called; what they share is said once.

    >>> from mri_jax.evaluation.variants import Variant
    >>> cnn, deep = Variant("cnn", "", 5, 1.0), Variant("cnn", "", 7, 1.0)
    >>> pair(Method("cnn5-w1", "tuned-low", cnn), Method("cnn5-w1", "source", cnn))
    'CNN-5: first conv layer fine-tuned minus source'
    >>> pair(Method("cnn7-w1", "source", deep), Method("cnn5-w1", "source", cnn))
    'CNN-7, source minus CNN-5, source'
    """
    if first.run == second.run and first.variant.is_baseline:
        without = "as they are" if second.stage == SOURCE else of_stage(second.stage)
        return f"{of_run(first)}: {of_stage(first.stage)} minus {without}"
    if first.run == second.run and first.variant.family == CNN:
        return f"{of_run(first)}: {of_stage(first.stage)} minus {of_stage(second.stage)}"
    return f"{label(first)} minus {label(second)}"


def titled(label: str) -> str:
    """Returns a label with a capital at its beginning, as a row of a table has it."""
    return label[:1].upper() + label[1:]


def _baseline(family: str) -> str:
    for baseline in BASELINES:
        for covariate, alone in baseline.alone.items():
            if family == alone:
                return covariate
        if family == baseline.label:
            return baseline.shown
    return family


def seen(stage: str) -> list[str]:
    """Returns what people call that which a stage's network saw beside the adaptation part."""
    words = {UNDIAGNOSED: "undiagnosed scans seen", TRANSDUCTIVE: "test scans seen"}
    return [words[mark] for mark in adaptation.marks(stage)]


def of_stage(stage: str) -> str:
    """Returns what people call a stage: ``source``, which layers were fine-tuned, or a method."""
    stage, part = parted(stage)
    if part.patients is not None:
        return f"{of_stage(stage)}, {part.patients}% patients"
    if part.labels is not None:
        return f"{of_stage(stage)}, {part.labels:g}% of the target"
    method = adaptation.of_stage(stage)
    if method:
        return ", ".join([method.shown, *seen(stage)])
    if stage == SOURCE or not stage.startswith(_TUNED):
        return stage
    layers = stage.removeprefix(_TUNED).removesuffix(_ADAPTED)
    adapted = ", target's statistics" if stage.endswith(_ADAPTED) else ""
    named = LAYER_SETS.get(layers) or f"conv layer {layers.removeprefix('conv')}"
    return f"{named} fine-tuned{adapted}"
