"""A whole study, typed: what the command line asks for and ``config.json`` keeps.

`Study.parse` checks each field, and what fields say together; a study that exists is consistent.
"""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import Any

from etils import epath

from mri_jax import files
from mri_jax.errors import UserError, naming
from mri_jax.filenames import refuse_alike, safe_name
from mri_jax.models.spec import without_retired
from mri_jax.settings import search as searching
from mri_jax.settings.adapting import Adaptation
from mri_jax.settings.fields import (
    ROOT,
    Many,
    Number,
    Overrides,
    field,
    flat,
    free,
    leaves,
    read,
    shown,
)
from mri_jax.settings.runs import Run, run_of
from mri_jax.settings.search import Search
from mri_jax.settings.sections import (
    AUTO,
    COHORTS,
    NAME,
    SEED,
    Augment,
    Baselines,
    Data,
    Finetune,
    Model,
    Simulation,
    Sites,
    Source,
    Task,
    Train,
)
from mri_jax.settings.space import Line, lines_of, overrides

# What a variant may change; the rest of a study is one for all its variants.
VARIED = (
    "task", "source", "targets", "sites", "model", "train", "finetune", "adaptation", "augment",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Study:
    """A whole study; `runs` are its networks.

    Made by `parse` or `read`, which check it.
    """

    name: str = field(NAME, "labels results", "base")
    preset: str = field(NAME, "which preset of the config this is", "demo")
    seed: int = field(SEED, "seed of every random stream", 2021)
    save_seconds: float = field(
        Number(0, 86400),
        "seconds between saved states of a training, which are saved after epochs; SIGKILL loses "
        "no more than that and an epoch",
        10.0,
        free=True,
    )
    task: Task = dataclasses.field(default_factory=Task)
    source: Source = dataclasses.field(default_factory=Source)
    targets: tuple[str, ...] = field(COHORTS, "test cohorts", ("ADNI2", "ADNI3", "AIBL"))
    sites: Sites = dataclasses.field(default_factory=Sites, metadata={"before": Sites()})
    data: Data = dataclasses.field(default_factory=Data)
    simulation: Simulation = dataclasses.field(default_factory=Simulation)
    model: Model = dataclasses.field(default_factory=Model)
    train: Train = dataclasses.field(default_factory=Train)
    finetune: Finetune = dataclasses.field(default_factory=Finetune)
    adaptation: Adaptation = dataclasses.field(
        default_factory=Adaptation, metadata={"before": Adaptation()}
    )
    augment: Augment = dataclasses.field(default_factory=Augment)
    baselines: Baselines = dataclasses.field(default_factory=Baselines)
    search: Search = dataclasses.field(default_factory=Search, metadata={"before": Search()})
    variants: tuple[dict[str, Any], ...] = field(
        Many(Overrides(), 0, 1000),
        f"network variants, each a dictionary of fields of {', '.join(VARIED)}; empty: one network",
        (),
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Study":
        """Returns the study of a nested mapping with all fields.

        Raises:
          UserError: A field is unknown, absent, of the wrong type or out of range, or fields
            contradict each other; the message names them.
        """
        _refuse_targets(values)
        study = read(cls, values, ROOT)
        cohort, store = files.expanded(study.data.cohort), files.expanded(study.data.store)
        study = replace(study, data=replace(study.data, cohort=cohort, store=store))
        _check(study)
        return study

    @classmethod
    def read(cls, path: epath.PathLike) -> "Study":
        """Returns the study that `write` wrote, in this version or an earlier one.

        Raises:
          UserError: The file cannot be read or holds no study.
        """
        with naming(str(path)):
            return cls.written(files.read_json(path, dict))

    @classmethod
    def written(cls, values: Mapping[str, Any]) -> "Study":
        """Returns the study of the fields that `to_json` gave, in this version or an earlier one.

        Raises:
          UserError: As `parse`; or a field that is no more has a value that cannot be had any more.
        """
        return cls.parse(_without_retired(values))

    def write(self, path: epath.PathLike) -> None:
        """Writes every field, as nested JSON."""
        files.write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Returns every field with its value, nested."""
        return asdict(self)

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The network variants, in the order of the tables."""
        if not self.variants:
            return (run_of(self, ROOT),)
        return tuple(self._variant(number) for number in range(len(self.variants)))

    def _variant(self, number: int) -> Run:
        variant, at = self.variants[number], f"{ROOT}.variants[{number}]"
        everything = self.to_json()
        for name in variant:
            if name in everything and name not in VARIED:
                raise UserError(
                    f"{at}.{name}: is one for all variants; they may change {', '.join(VARIED)}"
                )
        return run_of(read(Study, merged(everything, variant), at), at)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """What a search varies."""
        rules = {name: rule for name, rule, _ in leaves(Study, "")}
        return lines_of(self.search.space, rules)

    def trial(self, values: Mapping[str, Any]) -> Run:
        """Returns the network that a point of the search's space describes.

        Args:
          values: A value for each of its `lines` that is drawn; none: the network as it is.

        Raises:
          UserError: There is no such network.
        """
        changed = merged(self.to_json(), overrides(values, self.model))
        return run_of(read(Study, changed, ROOT), ROOT)

    def with_dtype(self, dtype: str) -> "Study":
        """Returns the study with a type of activations in place of every ``auto``.

        Example:
          >>> from mri_jax.settings.study import Study
          >>> from mri_jax.settings.sections import Model
          >>> Study(model=Model(dtype="auto")).with_dtype("bfloat16").model.dtype
          'bfloat16'
        """

        def settled(model: Mapping[str, Any]) -> dict[str, Any]:
            return {**model, **({"dtype": dtype} if model.get("dtype") == AUTO else {})}

        variants = tuple(
            {**each, "model": settled(each["model"])} if "model" in each else each
            for each in self.variants
        )
        return replace(self, model=Model(**settled(asdict(self.model))), variants=variants)

    @property
    def awaits_sites(self) -> bool:
        """Whether sites are to be left out of which only the cohort table knows the names.

        `mri_jax.planning.sites` then makes the variants, one a site.
        """
        return bool(self.sites.minimum) and not any(run.variant.left_out for run in self.runs)

    @property
    def smoke(self) -> bool:
        """Whether it asks only if everything runs, so that its scores mean nothing."""
        return self.preset == "smoke"

    @property
    def folder(self) -> str:
        """Name of the results folder by default: ``NAME-PRESET``."""
        return safe_name(f"{self.name}-{self.preset}", keep="_")

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Every cohort that is trained on or tested on, in the order source, targets."""
        names: list[str] = []
        for run in self.runs:
            names += run.source.cohorts + run.source.size_like
        for run in self.runs:
            names += run.targets
        return tuple(dict.fromkeys(names))

    def unlike(self, other: "Study") -> dict[str, tuple[Any, Any]]:
        """Returns the fields that change results and differ, by their names in messages.

        The first of two values is this study's. An entry of ``variants`` counts as a section; a
        value that is not there is None.
        """
        here, there = flat(self.to_json()), flat(other.to_json())
        names = [n for n in (here | there) if here.get(n) != there.get(n) and n not in free(Study)]
        return {f"{ROOT}.{n}": (here.get(n), there.get(n)) for n in sorted(names)}


def _without_retired(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a study's fields as any version wrote them without those that are no more."""

    def plain(section: Any) -> Any:
        if not (isinstance(section, Mapping) and isinstance(section.get("model"), Mapping)):
            return section
        return {**section, "model": without_retired(section["model"])}

    variants = values.get("variants")
    if isinstance(variants, list | tuple):
        values = {**values, "variants": [plain(each) for each in variants]}
    return plain(values)


def _refuse_targets(values: Any) -> None:
    """Refuses an objective of a search that names a target."""
    if isinstance(values, Mapping) and isinstance(values.get("search"), Mapping):
        searching.refuse_targets(values["search"].get("objectives"), values.get("targets"))


def _check(study: Study) -> None:
    """Check what the fields of a study say together."""
    _check_sites(study)
    data, names = study.data, [run.name for run in study.runs]
    searching.check(study.search)
    for number, line in enumerate(study.lines):
        if study.search.sampler == searching.GRID and not line.grid:
            raise UserError(
                f"{ROOT}.search.space[{number}].points: is missing; a grid needs the number "
                f"of values of {line.field}"
            )
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{ROOT}.variants: two variants are both called {min(repeated)!r}")
    refuse_alike(names, f"{ROOT}.variants")
    refuse_alike(study.cohorts, f"{ROOT}.source.cohorts, {ROOT}.targets")
    if bool(data.cohort) != bool(data.store):
        missing = "store" if data.cohort else "cohort"
        raise UserError(
            f"{ROOT}.data.{missing}: is empty; give both the cohort table and the store, or neither"
        )
    if data.histogram_reference == "training" and data.normalisation != "histogram":
        raise UserError(
            f"{ROOT}.data.histogram_reference: 'training' needs {ROOT}.data.normalisation=histogram"
        )


def _check_sites(study: Study) -> None:
    """Refuses what would say the same as the sites do, otherwise."""
    sites, plain = study.sites, Study()
    if study.sites.left_out:
        raise UserError(f"{ROOT}.sites.left_out: is said by the table; leave it empty")
    if not sites.minimum:
        for name in ("cohorts", "small"):
            if getattr(sites, name) != getattr(plain.sites, name):
                raise UserError(
                    f"{ROOT}.sites.{name}: needs {ROOT}.sites.minimum, which is 0: no site is left "
                    "out"
                )
        return
    if study.search.trials:
        raise UserError(
            f"{ROOT}.search.trials: a search and {ROOT}.sites.minimum exclude one another; search "
            "first, on sites that are named as the source"
        )
    for name, here, there in (
        ("source.cohorts", study.source.cohorts, plain.source.cohorts),
        ("targets", study.targets, plain.targets),
        ("finetune.cohort", study.finetune.cohort, plain.finetune.cohort),
    ):
        if here != there:
            raise UserError(
                f"{ROOT}.{name}: {shown(here)} says otherwise than {ROOT}.sites.minimum, by which "
                f"every site is left out once; name the sites in {ROOT}.sites.cohorts"
            )


def named(field: str) -> str:
    """Returns how messages name a field or a section: ``config.train.batch``.

    Raises:
      KeyError: There is none.
    """
    if field not in _names():
        raise KeyError(field)
    return f"{ROOT}.{field}"


@cache
def _names() -> frozenset[str]:
    fields = [name.split(".") for name, _, _ in leaves(Study, "")]
    return frozenset(".".join(parts[:n]) for parts in fields for n in range(1, len(parts) + 1))


def merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of nested ``values`` with ``overrides``."""
    result = copy.deepcopy(dict(values))
    for name, value in overrides.items():
        inside = result.get(name)
        if isinstance(value, Mapping) and isinstance(inside, Mapping):
            result[name] = merged(inside, value)
        else:
            result[name] = value
    return result
