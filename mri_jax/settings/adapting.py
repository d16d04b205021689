"""What the fields that adapt to another site must say together."""

from typing import TYPE_CHECKING

from mri_jax import adaptation
from mri_jax.adaptation import BASELINES
from mri_jax.errors import UserError
from mri_jax.evaluation import baselines
from mri_jax.models.spec import BATCH
from mri_jax.settings.sections import Source, Task

if TYPE_CHECKING:
    from mri_jax.settings.study import Study


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
