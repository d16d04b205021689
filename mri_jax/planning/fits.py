"""How source networks are trained and tuned: the fields of a run become the settings of a fit."""

from collections.abc import Mapping
from dataclasses import asdict, replace

from mri_jax.adaptation import ALL, SCRATCH, Method
from mri_jax.models import CNNSpec
from mri_jax.settings.runs import Run, Tuning
from mri_jax.settings.sections import Finetune, Train
from mri_jax.training.augment import AugmentSettings
from mri_jax.training.freezing import rules_for
from mri_jax.training.job import FitSettings, with_step
from mri_jax.training.objectives import of_method
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


def method_fit(run: Run, method: Method, scans: int, source_scans: int) -> FitSettings:
    """Returns how a method of `mri_jax.adaptation` trains a network.

    From scratch with the source's labels it is trained as a source network; with the target's
    alone, for as many steps as a source network takes at least. From a network it is trained as in
    fine-tuning, at the rate and for the epochs of its own where it has some.

    Args:
      run: The run.
      method: Which.
      scans: Scans of an epoch of it.
      source_scans: Scans of an epoch of a source network.
    """
    rates = run.adaptation.rates(method)
    if method.start != SCRATCH:
        fit = _from_network(run, method, rates)
    elif method.source_labels:
        fit = source_fit(run, scans)
    else:
        fit, least = _fit(run), source_fit(run, source_scans).stopping.min_epochs
        epochs = -(-least * (source_scans // fit.batch) // max(1, scans // fit.batch))
        fit = replace(fit, stopping=replace(fit.stopping, min_epochs=epochs, max_epochs=epochs))
    if method.gated:
        fit = with_step(fit, spec=gated(run.spec))
    steps = fit.stopping.max_epochs * (scans // fit.batch)
    return with_step(fit, objective=of_method(method.objective, rates, steps))


def gated(spec: CNNSpec) -> CNNSpec:
    """Returns a network with a spatial gate after its last block, and no other."""
    return replace(spec, attention="spatial", attention_blocks=(len(spec.repetitions),))


def _from_network(run: Run, method: Method, rates: Mapping[str, float]) -> FitSettings:
    fit = tuning_fit(run, Tuning("all", "keep"))
    if "learning_rate" in rates:
        rate = float(rates["learning_rate"])
        fit = with_step(fit, optimizer=replace(fit.step.optimizer, learning_rate=rate))
    if "epochs" in rates:
        epochs = int(rates["epochs"])
        fit = replace(fit, stopping=replace(fit.stopping, min_epochs=epochs, max_epochs=epochs))
    if method.trains != ALL:
        fit = with_step(fit, rules=((method.trains, True), (ALL, False)))
    return fit


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
            accumulate=train.accumulate,
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
