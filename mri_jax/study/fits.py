"""How source networks are trained and tuned: the settings of a run become those of a fit."""

from dataclasses import replace

from mri_jax.study.settings import Finetuning, Run, Tuning
from mri_jax.training.freezing import rules_for
from mri_jax.training.loop import FitSettings, with_step
from mri_jax.training.stopping import StoppingSettings


def source_fit(run: Run, scans: int) -> FitSettings:
    """How a source network is trained on so many scans: its limits in steps come to be epochs."""
    steps = scans // run.train.batch
    return replace(run.train, stopping=run.limits.applied(run.train.stopping, steps))


def tuning_fit(run: Run, choice: Tuning) -> FitSettings:
    """How a source network is tuned."""
    tuning = run.finetuning
    optimizer = replace(run.train.step.optimizer, learning_rate=tuning.learning_rate)
    fit = with_step(
        run.train,
        rules=layer_rules(choice.layers, run),
        frozen_statistics=choice.statistics,
        optimizer=optimizer,
    )
    return replace(fit, stopping=tuning_length(tuning, run.train.stopping))


def layer_rules(layers: str, run: Run) -> tuple[tuple[str, bool], ...]:
    """The rules of a named set, or of one conv layer with its BatchNorm."""
    if not layers.startswith("conv"):
        return rules_for(layers, run.spec)
    number = layers.removeprefix("conv")
    return ((rf"(conv{number}|bn{number})/.*", True), (".*", False))


def tuning_length(tuning: Finetuning, source: StoppingSettings) -> StoppingSettings:
    """A fixed number of epochs, or at most that many with the source's patience."""
    least = tuning.epochs if tuning.stopping == "fixed" else 1
    return replace(source, min_epochs=least, max_epochs=tuning.epochs)
