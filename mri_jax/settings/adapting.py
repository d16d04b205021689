"""The fields that adapt to another site, and what they must say together."""

from dataclasses import dataclass, make_dataclass
from typing import TYPE_CHECKING, Any

from mri_jax import adaptation
from mri_jax.adaptation import BASELINES
from mri_jax.adaptation import METHODS as ADAPTATIONS
from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.models.spec import BATCH
from mri_jax.settings.fields import Choice, Flag, Many, Number, Text, Whole, field
from mri_jax.settings.sections import Source, Task

if TYPE_CHECKING:
    from mri_jax.settings.study import Study


@dataclass(frozen=True, kw_only=True)
class _Adaptation:
    methods: tuple[str, ...] = field(
        Many(Choice(tuple(m.name for m in ADAPTATIONS)), 0, len(ADAPTATIONS), distinct=True),
        "ways of adapting beside finetune.layers (docs/adaptation.md); empty: none",
        (),
    )
    resampled: tuple[str, ...] = field(
        Many(Choice(adaptation.RESAMPLED), 0, 100, distinct=True),
        "those of methods that are also run on the adaptation part drawn anew, at equal size, to "
        "each of shares; names that are not in methods do nothing",
        (),
    )
    shares: tuple[int, ...] = field(
        Many(Whole(1, 99), 1, 99, rising=True),
        "percentages of patients to which the adaptation part is drawn for resampled",
        (20, 50, 80),
    )
    undiagnosed: str = field(
        Text(empty=True),
        "what the table has as diagnosis of those scans of finetune.cohort that have none; methods "
        "that use no labels of the target see them beside the adaptation part, and tables mark it; "
        "empty: they do not",
        "",
        before="",
    )
    transductive: bool = field(
        Flag(),
        "let methods that use no labels of the target see the test scans, too, without labels; "
        "tables mark it",
        False,
    )

    @property
    def marks(self) -> tuple[str, ...]:
        """What methods without labels see beside the adaptation part; see `mri_jax.adaptation`."""
        undiagnosed = (adaptation.UNDIAGNOSED,) * bool(self.undiagnosed)
        return undiagnosed + (adaptation.TRANSDUCTIVE,) * self.transductive

    def rates(self, method: adaptation.Method) -> dict[str, float]:
        """Returns the numbers that a method needs, by their names without that of the method."""
        return {
            rate.name: getattr(self, adaptation.field_of(method, rate)) for rate in method.rates
        }


def _rate(method: adaptation.Method, rate: adaptation.Rate) -> tuple[str, type, Any]:
    rule = Whole(1, int(rate.most)) if rate.whole else Number(0, rate.most)
    about = f"{method.name}: {rate.about}"
    name, kind = adaptation.field_of(method, rate), int if rate.whole else float
    # A config that lacks it was written when there was no such method, and does not ask for it.
    return name, kind, field(rule, about, rate.default, before=rate.default)


if TYPE_CHECKING:

    class Adaptation(_Adaptation):
        """How networks are adapted to the cohort of ``finetune`` otherwise."""

else:
    Adaptation = make_dataclass(
        "Adaptation",
        [_rate(method, rate) for method in ADAPTATIONS for rate in method.rates],
        bases=(_Adaptation,),
        namespace={
            "__doc__": "How networks are adapted to the cohort of finetune otherwise.",
            "__module__": __name__,
        },
        frozen=True,
        kw_only=True,
    )


def check_adaptation(study: "Study", task: Task, source: Source, at: str) -> None:
    """Checks that the methods of adaptation can do what is asked, and are told nothing in vain.

    Args:
      study: The study, or a variant of it.
      task: Its task.
      source: Its source, with the classes that it learns from.
      at: What stands before the names of its fields.

    Raises:
      UserError: A method lacks something, or a field would be ignored.
    """
    asked = study.adaptation
    methods = [adaptation.named(name) for name in asked.methods]
    lost = [m.name for m in methods if m.norms_alone]
    if lost and study.model.spec.norm != BATCH:
        raise UserError(
            f"{at}.adaptation.methods: {lost[0]!r} changes BatchNorm layers, and {at}.model.norm "
            f"is {study.model.spec.norm!r}; leave it out, or take norm='batch'"
        )
    harmonised = [m.name for m in methods if m.start == BASELINES]
    measured = [name for name in study.baselines.wanted if baselines.named(name).measures]
    if harmonised and not measured:
        names = " or ".join(
            f"{at}.baselines.{each.name}" for each in baselines.BASELINES if each.measures
        )
        raise UserError(
            f"{at}.adaptation.methods: {harmonised[0]!r} harmonises what is measured in scans, and "
            f"no such baseline is asked for; set {names} to True, or leave it out"
        )
    for name in ("resampled", "undiagnosed", "transductive"):
        if study.finetune.labels and getattr(asked, name):
            raise UserError(
                f"{at}.adaptation.{name}: cannot be combined with {at}.finetune.labels, which says "
                "what is adapted on"
            )
    for mark in asked.marks:
        if not any(method.label_free for method in methods):
            raise UserError(
                f"{at}.adaptation.{mark}: is for methods that use no labels of the target, and "
                f"{at}.adaptation.methods has none; leave it out"
            )
        if asked.resampled:
            raise UserError(
                f"{at}.adaptation.resampled: must be empty where {at}.adaptation.{mark} is set: "
                "the shares of those scans are as they are"
            )
    classes = {task.positive, task.negative, source.positive, source.negative}
    if asked.undiagnosed in classes:
        raise UserError(
            f"{at}.adaptation.undiagnosed: {asked.undiagnosed!r} is a diagnosis that is learnt; "
            "give what the table has where there is none"
        )
    if methods and study.finetune.cohort in source.cohorts:
        raise UserError(
            f"{at}.finetune.cohort: {study.finetune.cohort!r} is also in {at}.source.cohorts; "
            f"{at}.adaptation.methods adapt to another site than the source's"
        )
