"""The tables of a study: which methods stand in each and which pairs are tested, beforehand.

A family of tests is one table and one metric; Holm's adjustment runs within it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pandas as pd

from mri_jax import adaptation
from mri_jax.adaptation import Part, parted
from mri_jax.evaluation.baselines import LABELS
from mri_jax.evaluation.variants import OPTIONS, RANDOM, SEARCHED, UNKNOWN, Variant, of_rows

SOURCE = "source"


@dataclass(frozen=True, order=True)
class Method:
    """A row of a table: a network variant at a stage.

    Attributes:
      run: The name of the variant.
      stage: ``source``, or how it was fine-tuned.
      variant: What the run is; methods are the same by their names.
    """

    run: str
    stage: str = SOURCE
    variant: Variant = field(default=UNKNOWN, compare=False)

    @property
    def name(self) -> str:
        """As tables print it."""
        return self.run if self.stage == SOURCE else f"{self.run} {self.stage}"

    @property
    def wherever(self) -> "Method":
        """The same, whichever sites were left out."""
        if not self.variant.left_out:
            return self
        variant = replace(self.variant, left_out="")
        return Method(variant.name, self.stage, variant)


@dataclass(frozen=True)
class Family:
    """A table of the paper, or of the same form.

    Attributes:
      key: Short name, used in file names: ``depth``, ``width``, ``finetune``, ``task``, ``source``.
      title: What it shows.
      methods: Its rows, in order; baselines last.
      pairs: (first, second) that are tested; the difference is first minus second.
      exploratory: Whether the table was not planned for inference.
      apart: Whether its networks are tested on different cohorts: each on the sites left out.
    """

    key: str
    title: str
    methods: tuple[Method, ...]
    pairs: tuple[tuple[Method, Method], ...]
    exploratory: bool = False
    apart: bool = False

    @property
    def networks(self) -> tuple[Method, ...]:
        """The methods without the baselines."""
        return tuple(m for m in self.methods if not m.variant.is_baseline)

    @property
    def baselines(self) -> frozenset[str]:
        """The runs of its baselines."""
        return frozenset(m.run for m in self.methods if m.variant.is_baseline)

    @property
    def plain(self) -> frozenset[str]:
        """The names of its methods that are baselines."""
        return frozenset(m.name for m in self.methods if m.variant.is_baseline)


def declare(predictions: pd.DataFrame) -> tuple[Family, ...]:
    """Returns the tables that these predictions can fill, with their pairs.

    What a run is, is read from its columns (`mri_jax.evaluation.variants`).

    - depth: the networks alike but for depth that come in at least two; each against the
      shallowest.
    - width: the networks alike but for width that come in at least two; each against the narrowest.
    - attention, norm, residual: the networks alike but for it that come in at least two kinds,
      among them the paper's; each against that one.
    - finetune: for each run with tuned stages, source and tuned; each tuned against the source.
      Exploratory where more than four sets of layers were tuned. ``adaptation`` where it was
      adapted by other methods, too (`mri_jax.adaptation`): all of them stand in one table.
    - prevalence: the source beside methods on the adaptation part drawn to shares of patients;
      each method against itself at the middle share. labels: source and networks adapted on shares
      of the labels, each against the source.
    - task: the networks whose training set has a name (``CNN-AD1``); all pairs of one width.
    - search: the winner of a search and the best of as many random trials beside the networks that
      the study names, in none of the tables above; the winner against each.
    - sites: the networks alike but for the sites that were left out, each tested on these; tuned
      ones against their source, sources against the baselines that did not see the site either.
    - source: whatever source network is in none of these.

    Every baseline stands in every table, and the first source network of a table is tested
    against each; a baseline fitted on a related task's subjects (``baseline-voxels-CNN-AD2``)
    stands in the task tables and is tested against the network of that training set.
    """
    known = of_rows(predictions)
    variants = {run: v for run, v in known.items() if not v.left_out}
    here = predictions[["run", "stage"]].drop_duplicates()
    present = here[here["run"].isin(variants)]
    names = sorted(present.loc[present["stage"] == SOURCE, "run"])
    source = [Method(run, SOURCE, variants[run]) for run in names]
    plain = [m for m in source if m.variant.is_baseline]
    baselines = sorted(
        (m for m in plain if not m.variant.source), key=lambda m: LABELS.index(m.variant.family)
    )
    related = [m for m in plain if m.variant.source]
    every = [m for m in source if not m.variant.is_baseline]
    networks = [m for m in every if not m.variant.chosen]
    families = [
        *_searches(every, baselines),
        *_depths(networks, baselines),
        *_widths(networks, baselines),
        *(family for name in OPTIONS for family in _options(name, networks, baselines)),
        *_tunings(present, variants, baselines),
        *_tasks(networks, related or baselines),
    ]
    shown = {method.run for family in families for method in family.methods}
    rest = [m for m in every if m.run not in shown]
    if rest:
        families.append(_family("source", "Source networks on the target cohorts", rest, baselines))
    return (*families, *_sites(here, known))


def _sites(present: pd.DataFrame, variants: dict[str, Variant]) -> list[Family]:
    """Returns a table for each kind of networks of which every site was left out once."""
    methods = [
        Method(run, stage, variants[run])
        for run, stage in present.itertuples(index=False)
        if variants[run].left_out
    ]
    plain = [m for m in methods if m.variant.is_baseline]
    kinds: dict[Variant, list[Method]] = {}
    for method in methods:
        if not method.variant.is_baseline:
            kinds.setdefault(replace(method.variant, left_out=""), []).append(method)
    families = []
    for kind, found in sorted(kinds.items(), key=lambda item: item[0].order):
        rows = sorted(found, key=lambda m: (m.variant.left_out, layer_order(m.stage)))
        sources = {m.variant.left_out: m for m in rows if m.stage == SOURCE}
        beside = sorted(
            (m for m in plain if m.variant.source == kind.source),
            key=lambda m: (m.variant.left_out, LABELS.index(m.variant.family)),
        )
        pairs = [(m, sources[m.variant.left_out]) for m in rows if m.stage != SOURCE]
        pairs += [(sources[b.variant.left_out], b) for b in beside if b.variant.left_out in sources]
        key = "sites" if len(kinds) == 1 else f"sites-{kind.name}"
        title = "Leave one site out: networks of all other sites"
        families.append(Family(key, title, (*rows, *beside), tuple(pairs), apart=True))
    return families


def _family(
    key: str,
    title: str,
    networks: list[Method],
    baselines: list[Method],
    pairs: list[tuple[Method, Method]] | None = None,
    exploratory: bool = False,
) -> Family:
    chosen = pairs if pairs is not None else [(m, networks[0]) for m in networks[1:]]
    against = [
        (network, baseline)
        for network in networks
        for baseline in baselines
        if _stands_beside(baseline.variant.source, network, networks[0])
    ]
    return Family(key, title, (*networks, *baselines), (*chosen, *against), exploratory)


def _stands_beside(source: str, network: Method, first: Method) -> bool:
    """Returns whether a network is tested against the baselines fitted on this training set."""
    return source == network.variant.source if source else network == first


def _alike(
    networks: list[Method], key: Callable[[Variant], tuple[str | float | None, ...]]
) -> list[list[Method]]:
    """Returns the networks that share what ``key`` says, at least two each, in its order.

    Networks of which something of it is unknown, or whose training set has a name, are left out.
    """
    found: dict[tuple, list[Method]] = {}
    for method in networks:
        value = key(method.variant)
        if None not in value and not method.variant.source:
            found.setdefault(value, []).append(method)
    return [members for _, members in sorted(found.items()) if len(members) > 1]


def _depths(networks: list[Method], baselines: list[Method]) -> list[Family]:
    found = []
    for members in _alike(networks, lambda v: (*v.options, v.width)):
        rows = sorted(members, key=lambda m: m.variant.depth or 0)
        width, kind = rows[0].variant.width, _kind(rows[0].variant.options)
        key = "depth" if width == 1.0 else f"depth-w{width:g}"
        title = f"Network depth, width {width:g}"
        found.append(_family(_with(kind, key, "-"), _with(kind, title, ", "), rows, baselines))
    return found


def _widths(networks: list[Method], baselines: list[Method]) -> list[Family]:
    found = []
    for members in _alike(networks, lambda v: (*v.options, v.depth)):
        rows = sorted(members, key=lambda m: (m.variant.width or 0.0, m.run))
        depth, kind = rows[0].variant.depth, _kind(rows[0].variant.options)
        key = "width" if depth == 5 else f"width-cnn{depth}"
        title = f"Network width, CNN-{depth}"
        found.append(_family(_with(kind, key, "-"), _with(kind, title, ", "), rows, baselines))
    return found


def _kind(options: tuple[str, ...]) -> str:
    return "-".join(filter(None, options))


def _with(kind: str, text: str, between: str) -> str:
    return f"{text}{between}{kind}" if kind else text


_OPTION_TITLES = {
    "attention": "Attention",
    "norm": "Normalisation",
    "residual": "Residual blocks",
}


def _options(name: str, networks: list[Method], baselines: list[Method]) -> list[Family]:
    others = [other for other in OPTIONS if other != name]
    found = []
    for members in _alike(
        networks, lambda v: (v.depth, v.width, *(getattr(v, other) for other in others))
    ):
        rows = sorted(members, key=lambda m: (getattr(m.variant, name), m.run))
        kinds = {getattr(m.variant, name) for m in rows}
        if len(kinds) < 2 or "" not in kinds:
            continue
        first = rows[0].variant
        kind = _kind(tuple(getattr(first, other) for other in others))
        usual = (first.depth, first.width) == (5, 1.0)
        key = name if usual else f"{name}-cnn{first.depth}-w{first.width:g}"
        title = f"{_OPTION_TITLES[name]} in CNN-{first.depth}, width {first.width:g}"
        found.append(_family(_with(kind, key, "-"), _with(kind, title, ", "), rows, baselines))
    return found


def _tunings(
    present: pd.DataFrame, variants: dict[str, Variant], baselines: list[Method]
) -> list[Family]:
    found = []
    tuned = present[present["stage"] != SOURCE]
    of_baselines = tuned["run"].isin([m.run for m in baselines])
    harmonised = [
        Method(run, stage, variants[run])
        for run, stage in tuned.loc[of_baselines, ["run", "stage"]].itertuples(index=False)
        if parted(stage)[1] == Part()
    ]
    plain = sorted([*baselines, *harmonised], key=_baseline_order)
    tuned = tuned[~of_baselines]
    stages_of: dict[str, list[str]] = {
        run: list(stages) for run, stages in sorted(tuned.groupby("run")["stage"])
    }
    if harmonised and not stages_of:
        stages_of = {run: [] for run, v in variants.items() if not v.is_baseline and not v.source}
    for run, stages in stages_of.items():
        variant = variants[run]
        source = Method(run, SOURCE, variant)
        every = [Method(run, stage, variant) for stage in sorted(stages, key=layer_order)]
        others = _parted(every, source, len(stages_of) == 1)
        rows = [row for row in every if parted(row.stage)[1] == Part()]
        if not (rows or harmonised):
            found += others
            continue
        adapted = bool(harmonised) or any(adaptation.of_stage(row.stage) for row in rows)
        key = "adaptation" if adapted else "finetune"
        key = key if len(stages_of) == 1 else f"{key}-{run}"
        pairs = [(row, source) for row in rows]
        pairs += [(m, Method(m.run, SOURCE, m.variant)) for m in harmonised]
        title = f"Fine-tuning of {run}: source and tuned networks on the same subjects"
        if adapted:
            title = f"Adaptation of {run}: source and adapted networks on the same subjects"
        exploratory = len(rows) > 4 and not adapted
        found += [_family(key, title, [source, *rows], plain, pairs, exploratory), *others]
    return found


def _searches(networks: list[Method], baselines: list[Method]) -> list[Family]:
    """Returns the table of what a search chose, beside the networks of its study."""
    chosen = [m for how in (SEARCHED, RANDOM) for m in networks if m.variant.chosen == how]
    if not chosen:
        return []
    others = [m for m in networks if not m.variant.chosen and not m.variant.source]
    rows = [*chosen, *sorted(others, key=lambda m: m.variant.order)]
    pairs = [(rows[0], m) for m in rows[1:]]
    return [_family("search", "Search: its winner beside other networks", rows, baselines, pairs)]


def _baseline_order(method: Method) -> tuple[int, bool, str]:
    """Returns what sorts baselines: as they are declared, each before it is harmonised."""
    return LABELS.index(method.variant.family), method.stage != SOURCE, method.stage


def _parted(rows: list[Method], source: Method, alone: bool) -> list[Family]:
    """Returns the tables of networks that were adapted on other scans than a whole part."""
    found = []
    of_patients = [row for row in rows if parted(row.stage)[1].patients is not None]
    of_labels = [row for row in rows if parted(row.stage)[1].labels is not None]
    if of_patients:
        shares = sorted({parted(row.stage)[1].patients or 0 for row in of_patients})
        middle = min(shares, key=lambda share: abs(share - 50))
        at = {(parted(row.stage)[0], parted(row.stage)[1].patients): row for row in of_patients}
        pairs = [
            (row, at[name, middle])
            for (name, share), row in at.items()
            if share != middle and (name, middle) in at
        ]
        title = f"Share of patients in the adaptation part of {source.run}: drawn at equal size"
        found.append(Family("prevalence", title, (source, *of_patients), tuple(pairs)))
    if of_labels:
        title = f"Number of labels of {source.run}: adapted on shares of the target's subjects"
        pairs = [(row, source) for row in of_labels]
        found.append(Family("labels", title, (source, *of_labels), tuple(pairs)))
    if alone:
        return found
    return [replace(family, key=f"{family.key}-{source.run}") for family in found]


def layer_order(stage: str) -> tuple[int, int, str, float]:
    """Returns what sorts stages: source, all layers, low, high, conv layers by number, the head.

    Networks adapted by other methods come after them, those without labels first; of one way those
    that were adapted on fewer patients or labels.
    """
    stage, part = parted(stage)
    method = adaptation.of_stage(stage)
    if method:
        place = adaptation.METHODS.index(method)
        return (10 + method.target_labels, place, stage, part.patients or part.labels or 0)
    layers = stage.removeprefix("tuned-").split("-")[0]
    # A longer name of a conv layer has a larger number.
    rank = {"source": -1, "all": 0, "low": 1, "high": 2, "head": 4}.get(layers, 3)
    return rank, len(layers), stage, part.labels or 0


def _tasks(networks: list[Method], baselines: list[Method]) -> list[Family]:
    found: dict[float, list[Method]] = {}
    for method in networks:
        if method.variant.source and method.variant.width is not None:
            found.setdefault(method.variant.width, []).append(method)
    families = []
    for width, rows in sorted(found.items()):
        pairs = [(b, a) for place, a in enumerate(rows) for b in rows[place + 1 :]]
        title = f"Training on a related task, width {width:g}"
        families.append(_family(f"task-w{width:g}", title, rows, baselines, pairs))
    return families
