"""A model as a folder that can be given away, and that can be opened without trusting it.

::

    MODEL/model.json                  spec, grid, preprocessing, normalisation, references
    MODEL/networks/STAGE-foldK.npz    parameters, statistics, moments of features; no pickle
    MODEL/MODEL_CARD.md               for people
    MODEL/checksums.json              format; size and SHA-256 of every file above

Opening it reads JSON and plain arrays and executes nothing. Checksums, sizes, names, shapes and
types are compared with what the spec demands before an array is allocated.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.filenames import safe_name
from mri_jax.models import CNN, CNNSpec
from mri_jax.models.spec import without_retired
from mri_jax.prediction import arrays
from mri_jax.prediction.card import card
from mri_jax.prediction.model import (
    KINDS,
    PERCENTS,
    Ensemble,
    FeatureReference,
    FigureReference,
    FoldNetwork,
    ModelProvenance,
    OperatingPoint,
    PortableModel,
    ScoreGroup,
    Tested,
    TrainingGroup,
    widths,
)
from mri_jax.typed import build
from mri_jax.volumes.grids import Grid
from mri_jax.volumes.normalise import Normalisation
from mri_jax.volumes.pipeline import PreprocessSettings

FORMAT = 3
CHECKSUMS = "checksums.json"
DESCRIPTION = "model.json"
CARD = "MODEL_CARD.md"
# No network of the family comes near these; a folder that asks for more is refused unread.
MAX_JSON_BYTES = 16 << 20
MAX_LAYERS = 64
MAX_PARAMETERS = 1 << 29
MAX_VOXELS = 1 << 28


def save(model: PortableModel, path: epath.PathLike) -> None:
    """Write a model as a folder, whole or not at all.

    Raises:
      UserError: The path exists and is not a model's folder.
    """
    target = epath.Path(path)
    free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not free and not is_model(target):
        raise UserError(f"{target}: exists and is not a model folder; nothing was written")
    with files.replacing(target) as folder:
        for ensemble in model.ensembles:
            for network in ensemble.networks:
                arrays.write(folder / _network_file(ensemble.stage, network.fold), _flat(network))
        files.write_json(folder / DESCRIPTION, _description(model))
        files.write_markdown(folder / CARD, card(model))
        names = [DESCRIPTION, CARD, *_network_files(model)]
        listed = {}
        for name in names:
            data = (folder / name).read_bytes()
            listed[name] = {"bytes": len(data), "sha256": files.sha256_of_bytes(data)}
        files.write_json(folder / CHECKSUMS, {"format": FORMAT, "files": listed})
        if target.exists():
            target.rmtree()


def is_model(path: epath.PathLike) -> bool:
    """Returns whether a folder looks like an exported model."""
    return (epath.Path(path) / CHECKSUMS).exists()


def load(path: epath.PathLike) -> PortableModel:
    """Open a model's folder, which need not be trusted.

    Raises:
      UserError: It is no model folder, of a newer format, incomplete, altered or malformed.
    """
    folder = epath.Path(path)
    listed = _checked_list(folder)
    _check_file(folder, DESCRIPTION, listed, MAX_JSON_BYTES)
    value = files.read_json(folder / DESCRIPTION, dict)
    try:
        return _model(value, folder, listed)
    except UserError as error:
        if str(error).startswith(str(folder)):
            raise
        raise UserError(f"{folder / DESCRIPTION}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{folder / DESCRIPTION}: malformed ({type(error).__name__}: {error})"
        ) from None


def _network_file(stage: str, fold: int) -> str:
    return f"networks/{safe_name(stage)}-fold{fold}.npz"


def _network_files(model: PortableModel) -> list[str]:
    return [_network_file(e.stage, n.fold) for e in model.ensembles for n in e.networks]


def _flat(network: FoldNetwork) -> dict[str, np.ndarray]:
    flat = {}
    for kind, reference in network.features.items():
        flat[f"features/{kind}/mean"] = np.asarray(reference.mean, np.float64)
        flat[f"features/{kind}/precision"] = np.asarray(reference.precision, np.float64)
    for collection, layers in network.variables.items():
        for layer, leaves in layers.items():
            for name, array in leaves.items():
                flat[f"{collection}/{layer}/{name}"] = np.asarray(array)
    return dict(sorted(flat.items()))


def _description(model: PortableModel) -> dict[str, Any]:
    def plain_ensemble(ensemble: Ensemble) -> dict[str, Any]:
        networks = [
            {
                "fold": n.fold,
                "typical": {kind: r.typical for kind, r in n.features.items()},
                "trained_on": sorted(n.trained_on),
            }
            for n in ensemble.networks
        ]
        parts = ("points", "groups", "tested")
        return {
            "stage": ensemble.stage,
            "networks": networks,
            "temperature": ensemble.temperature,
            "calibration": ensemble.calibration,
            "distance_limits": dict(ensemble.distance_limits),
            "distance_n": ensemble.distance_n,
            **{name: [asdict(part) for part in getattr(ensemble, name)] for name in parts},
        }

    return {
        "format": FORMAT,
        "name": model.name,
        "simulated": model.simulated,
        "negative": model.negative,
        "positive": model.positive,
        "spec": model.spec.to_dict(),
        "grid": asdict(model.grid),
        "settings": model.settings.to_json() if model.settings else None,
        "never_raw": model.never_raw,
        "normalisation": asdict(model.normalisation),
        "ensembles": [plain_ensemble(ensemble) for ensemble in model.ensembles],
        "quality": {
            name: {k: v if np.isfinite(v) else None for k, v in asdict(figure).items()}
            for name, figure in model.quality.items()
        },
        "training": [asdict(group) for group in model.training],
        "notes": list(model.notes),
        "provenance": asdict(model.provenance),
    }


def _checked_list(folder: epath.Path) -> Mapping[str, Any]:
    path = folder / CHECKSUMS
    if not path.exists():
        raise UserError(f"{folder}: is not a model folder (no {CHECKSUMS})")
    if path.stat().length > MAX_JSON_BYTES:
        raise UserError(f"{path}: is too large to be a list of files")
    value = files.read_json(path, dict)
    found = value.get("format")
    if type(found) is not int or found < 1:
        raise UserError(f"{path}: states no format")
    if found != FORMAT:
        remedy = "install a newer one" if found > FORMAT else "export the model again from its run"
        raise UserError(
            f"{folder}: is of format {found}; this version of mri_jax reads {FORMAT}: {remedy}"
        )
    listed = value.get("files")
    if not isinstance(listed, dict) or not all(isinstance(v, dict) for v in listed.values()):
        raise UserError(f"{path}: lists no files")
    return listed


def _check_file(folder: epath.Path, name: str, listed: Mapping[str, Any], limit: int) -> None:
    """Compare a file with the list; its size is looked at before its content."""
    path = folder / name
    if name not in listed or not path.exists():
        raise UserError(f"{path}: is missing")
    size = path.stat().length
    if size > limit:
        raise UserError(f"{path}: holds {size} bytes; the spec allows {limit}")
    if size != listed[name].get("bytes"):
        raise UserError(f"{path}: holds {size} bytes, not the {listed[name].get('bytes')} listed")
    if files.sha256_of_file(path) != listed[name].get("sha256"):
        raise UserError(f"{path}: its checksum is not the one listed; the file was altered")


def _model(
    value: Mapping[str, Any], folder: epath.Path, listed: Mapping[str, Any]
) -> PortableModel:
    spec = build(CNNSpec, without_retired(build(dict[str, Any], value["spec"], "spec")), "spec")
    grid = _grid(value["grid"])
    expected = _expected(spec, grid)
    settings = value["settings"]
    if not value["ensembles"]:
        raise UserError("ensembles: there is none")
    return PortableModel(
        name=build(str, value["name"], "name"),
        simulated=build(bool, value["simulated"], "simulated"),
        negative=build(str, value["negative"], "negative"),
        positive=build(str, value["positive"], "positive"),
        spec=spec,
        grid=grid,
        settings=None if settings is None else PreprocessSettings.from_json(settings),
        never_raw=build(bool, value["never_raw"], "never_raw"),
        normalisation=build(Normalisation, value["normalisation"], "normalisation"),
        ensembles=tuple(_ensemble(each, expected, folder, listed) for each in value["ensembles"]),
        quality={name: _figure(each, name) for name, each in value["quality"].items()},
        training=build(tuple[TrainingGroup, ...], value["training"], "training"),
        notes=build(tuple[str, ...], value["notes"], "notes"),
        provenance=build(ModelProvenance, value["provenance"], "provenance"),
    )


def _grid(value: Mapping[str, Any]) -> Grid:
    grid = build(Grid, value, "grid")
    if min(grid.shape) < 1 or math.prod(grid.shape) > MAX_VOXELS or grid.spacing <= 0:
        raise UserError(f"grid: {grid.shape} of {grid.spacing} mm is no grid of voxels")
    return grid


def _expected(spec: CNNSpec, grid: Grid) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns names and shapes of a network's arrays, without allocating any."""
    # Counted before the spec is spelled out layer by layer.
    if sum(spec.repetitions) > MAX_LAYERS or len(spec.fc) > MAX_LAYERS:
        raise UserError(f"spec: more than {MAX_LAYERS} conv or FC layers")
    volume = jax.ShapeDtypeStruct((1, *grid.shape, 1), np.float32)
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    tree = jax.eval_shape(lambda k, x: CNN(spec).init(k, x, train=False), key, volume)
    flat = {
        f"{collection}/{layer}/{name}": leaf
        for collection, layers in tree.items()
        for layer, leaves in layers.items()
        for name, leaf in leaves.items()
    }
    for kind, width in widths(spec).items():
        flat[f"features/{kind}/mean"] = jax.ShapeDtypeStruct((width,), np.float32)
        flat[f"features/{kind}/precision"] = jax.ShapeDtypeStruct((width, width), np.float32)
    if sum(math.prod(leaf.shape) for leaf in flat.values()) > MAX_PARAMETERS:
        raise UserError(f"spec: more than {MAX_PARAMETERS} parameters")
    return dict(sorted(flat.items()))


def _ensemble(
    value: Mapping[str, Any],
    expected: Mapping[str, jax.ShapeDtypeStruct],
    folder: epath.Path,
    listed: Mapping[str, Any],
) -> Ensemble:
    stage = build(str, value["stage"], "stage")
    if not re.fullmatch(r"[A-Za-z0-9\-]+", stage):
        raise UserError(f"stage: {stage!r} is not a stage's name")
    networks = []
    for each in value["networks"]:
        fold = build(int, each["fold"], "fold")
        name = _network_file(stage, fold)
        _check_file(folder, name, listed, arrays.most_bytes(expected))
        found = arrays.read(folder / name, expected)
        variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
        for key, array in found.items():
            if not key.startswith("features/"):
                collection, layer, leaf = key.split("/")
                variables.setdefault(collection, {}).setdefault(layer, {})[leaf] = array
        trained_on = build(tuple[str, ...], each["trained_on"], "trained_on")
        features = {
            kind: FeatureReference(
                found[f"features/{kind}/mean"],
                found[f"features/{kind}/precision"],
                build(float, each["typical"][kind], f"typical.{kind}"),
            )
            for kind in KINDS
        }
        networks.append(FoldNetwork(fold, variables, features, frozenset(trained_on)))
    if not networks or not value["points"]:
        raise UserError(f"ensembles: {stage} has no networks or no operating point")
    temperature = build(float | None, value["temperature"], "temperature")  # type: ignore[arg-type]
    if temperature is not None and not temperature > 0:
        raise UserError(f"ensembles: {stage}: temperature {temperature} must be positive")
    limits = build(dict[str, float], value["distance_limits"], "distance_limits")
    return Ensemble(
        stage=stage,
        networks=tuple(networks),
        temperature=temperature,
        calibration=build(str, value["calibration"], "calibration"),
        points=build(tuple[OperatingPoint, ...], value["points"], "points"),
        groups=_groups(value["groups"]),
        tested=build(tuple[Tested, ...], value["tested"], "tested"),
        distance_limits={kind: limits[kind] for kind in KINDS},
        distance_n=build(int, value["distance_n"], "distance_n"),
    )


def _groups(value: Any) -> tuple[ScoreGroup, ...]:
    groups = build(tuple[ScoreGroup, ...], value, "groups")
    for group in groups:
        if len(group.scores.percentiles) != len(PERCENTS):
            raise UserError(
                f"groups: {group.cohort}: {len(group.scores.percentiles)} percentiles, not "
                f"{len(PERCENTS)}"
            )
    return groups


def _figure(value: Mapping[str, Any], name: str) -> FigureReference:
    # No limit is null, since JSON knows no infinity.
    low, high = (-1.0 if value[end] is None else value[end] for end in ("low", "high"))
    figure = build(FigureReference, {**value, "low": low, "high": high}, f"quality.{name}")
    return replace(
        figure,
        low=-np.inf if value["low"] is None else figure.low,
        high=np.inf if value["high"] is None else figure.high,
    )
