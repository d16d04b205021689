"""How source networks are trained and tuned: the fields of a run become the settings of a fit."""

from dataclasses import asdict, replace

from mri_jax.settings.sections import Finetune, Train
from mri_jax.settings.study import Run, Tuning
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.freezing import rules_for
from mri_jax.training.loop import FitSettings, with_step
from mri_jax.training.step import LossSettings, OptimizerSettings, StepSettings
from mri_jax.training.stopping import StepLimits, StoppingSettings


def source_fit(run: Run, scans: int) -> FitSettings:
    """Returns how a source network is trained on so many scans: limits in steps become epochs."""
    fit, limits = _fit(run), StepLimits(run.train.min_steps, run.train.patience_steps)
    return replace(fit, stopping=limits.applied(fit.stopping, scans // fit.batch))


def tuning_fit(run: Run, choice: Tuning) -> FitSettings:
    """Returns how a source network is tuned."""
    fit = _fit(run)
    fit = with_step(
        fit,
        rules=rules_for(choice.layers, run.spec),
        frozen_statistics=choice.statistics,
        optimizer=replace(fit.step.optimizer, learning_rate=float(run.finetune.learning_rate)),
    )
    return replace(fit, stopping=tuning_length(run.finetune, fit.stopping))


def _fit(run: Run) -> FitSettings:
    """Returns how all layers are trained, with the limits that are given in epochs."""
    train = run.train
    return FitSettings(
        step=StepSettings(
            spec=run.spec,
            optimizer=OptimizerSettings(
                learning_rate=float(train.learning_rate),
                weight_decay=float(train.weight_decay),
                clip_norm=float(train.clip_norm) or None,
            ),
            loss=LossSettings(label_smoothing=float(train.label_smoothing)),
        ),
        batch=train.batch,
        stopping=length(train),
        augment=AugmentSettings(**asdict(run.augment)),
    )


def length(train: Train) -> StoppingSettings:
    """Returns the limits of a source training that are given in epochs."""
    return StoppingSettings(
        min_epochs=train.min_epochs,
        max_epochs=train.max_epochs,
        patience=train.patience,
        min_delta=float(train.min_delta),
    )


def tuning_length(tuning: Finetune, source: StoppingSettings) -> StoppingSettings:
    """Returns a fixed number of epochs, or at most that many with the source's patience."""
    least = tuning.epochs if tuning.stopping == "fixed" else 1
    return replace(source, min_epochs=least, max_epochs=tuning.epochs)
