"""What a fingerprint holds of settings, field by field, so that it outlives changes of the code.

A finished stage is found by the fingerprint of all that determines it. Were that simply every field
of the settings, each new field would give every network another name and have it trained again.

Whoever changes one of the classes in `FIELDS`:

- adds a field: names it under ``later`` with the value at which results are those of before. At
  that value it is left out, so every fingerprint stays as it is.
- removes a field: moves it from ``always`` to ``retired`` with the value that the code now implies
  (one in ``later`` is just deleted; what had another value is not found again, which is right).
- changes a default: changes nothing here. A value in this table is never changed.

A field that is not named here is an error of the first plan (and of ``tests/planning``).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from mri_jax.models import CNNSpec
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.job import FitSettings
from mri_jax.training.objectives import CROSS_ENTROPY, Objective
from mri_jax.training.step import LossSettings, OptimizerSettings, StepSettings
from mri_jax.training.stopping import StoppingSettings
from mri_jax.volumes.normalise import Normalisation


@dataclass(frozen=True)
class Fields:
    """How the fields of a class enter a fingerprint.

    Attributes:
      always: Written whatever their value: the fields of the first version.
      later: Fields that came later, with the value at which each is left out.
      retired: Fields that are no more, with the value that is still written.
    """

    always: tuple[str, ...]
    later: Mapping[str, Any] = field(default_factory=dict)
    retired: Mapping[str, Any] = field(default_factory=dict)


FIELDS: dict[type, Fields] = {
    FitSettings: Fields(("step", "batch", "stopping", "augment"), retired={"evaluation_batch": 8}),
    StepSettings: Fields(
        ("spec", "optimizer", "loss", "rules", "frozen_statistics", "first"),
        later={"objective": CROSS_ENTROPY, "accumulate": 1},
    ),
    CNNSpec: Fields(
        (
            "repetitions",
            "filters",
            "width",
            "fc",
            "dropout",
            "classes",
            "momentum",
            "epsilon",
            "dtype",
        ),
        later={"attention": "none", "attention_blocks": (), "norm": "batch", "residual": False},
        retired={"in_channels": 1, "form": "fast"},
    ),
    OptimizerSettings: Fields(("learning_rate", "weight_decay", "clip_norm")),
    LossSettings: Fields(("label_smoothing",), retired={"class_weights": None}),
    StoppingSettings: Fields(("min_epochs", "max_epochs", "patience", "min_delta")),
    AugmentSettings: Fields(("flip", "shift", "intensity", "bias_field", "noise")),
    Normalisation: Fields(("method", "clip", "background", "reference")),
}

# Switches of JAX that the environment can set and that change numbers, with JAX's own values.
_SWITCHES = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_default_matmul_precision": None,
}


def describe(settings: Any) -> Any:
    """Settings as JSON types, as a fingerprint holds them.

    Raises:
      TypeError: A class or one of its fields is not in `FIELDS`; the docstring above says what to
        do.
    """
    if isinstance(settings, tuple | list):
        return [describe(item) for item in settings]
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    if isinstance(settings, Objective):
        own = dataclasses.asdict(settings)
        return {"objective": settings.name, "version": settings.version, **own}
    kind = type(settings)
    listed = FIELDS.get(kind, Fields(()))
    unlisted = {f.name for f in dataclasses.fields(settings)} ^ {*listed.always, *listed.later}
    if unlisted:
        raise TypeError(
            f"{kind.__name__}.{min(unlisted)}: is not as {__name__}.FIELDS says; its docstring "
            "tells how a field is added or removed"
        )
    written = {name: getattr(settings, name) for name in listed.always}
    for name, left_out_at in listed.later.items():
        if getattr(settings, name) != left_out_at:
            written[name] = getattr(settings, name)
    return {name: describe(value) for name, value in (written | dict(listed.retired)).items()}


def switches() -> dict[str, Any]:
    """JAX's switches that are not as JAX has them by default; empty where all are."""
    found = {name: getattr(jax.config, name) for name in _SWITCHES}
    return {name: value for name, value in found.items() if value != _SWITCHES[name]}
