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
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.evaluation.delong import Interval
from mri_jax.models import CNN, CNNSpec
from mri_jax.prediction import arrays
from mri_jax.prediction.card import card
from mri_jax.prediction.model import (
    KINDS,
    PERCENTS,
    CohortRates,
    Distribution,
    Ensemble,
    FeatureReference,
    FigureReference,
    FoldNetwork,
    Model,
    OperatingPoint,
    Rate,
    ScoreGroup,
    Tested,
    TrainingGroup,
    widths,
)
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


def save(model: Model, path: epath.PathLike) -> None:
    """Write a model as a folder, whole or not at all.

    Raises:
      UserError: The path exists and is not a model's folder.
    """
    target = epath.Path(path)
    free = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not free and not is_model(target):
        raise UserError(f"{target}: exists and is not a model folder; nothing was written")
    with files.beside(target) as folder:
        for ensemble in model.ensembles:
            for network in ensemble.networks:
                arrays.write(folder / _network_file(ensemble.stage, network.fold), _flat(network))
        files.write_json(folder / DESCRIPTION, _description(model))
        files.write_text(folder / CARD, card(model))
        names = [DESCRIPTION, CARD, *_network_files(model)]
        listed = {}
        for name in names:
            data = (folder / name).read_bytes()
            listed[name] = {"bytes": len(data), "sha256": files.sha256_of_bytes(data)}
        files.write_json(folder / CHECKSUMS, {"format": FORMAT, "files": listed})
        if target.exists():
            target.rmtree()


def is_model(path: epath.PathLike) -> bool:
    """Whether a folder looks like an exported model."""
    return (epath.Path(path) / CHECKSUMS).exists()


def load(path: epath.PathLike) -> Model:
    """Open a model's folder, which need not be trusted.

    Raises:
      UserError: It is no model folder, of a newer format, incomplete, altered or malformed.
    """
    folder = epath.Path(path)
    listed = _checked_list(folder)
    _check_file(folder, DESCRIPTION, listed, MAX_JSON_BYTES)
    value = files.read_json(folder / DESCRIPTION)
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
    return f"networks/{stage}-fold{fold}.npz"


def _network_files(model: Model) -> list[str]:
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


def _description(model: Model) -> dict[str, Any]:
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
        "provenance": dict(model.provenance),
    }


def _checked_list(folder: epath.Path) -> Mapping[str, Any]:
    path = folder / CHECKSUMS
    if not path.exists():
        raise UserError(f"{folder}: is not a model folder (no {CHECKSUMS})")
    if path.stat().length > MAX_JSON_BYTES:
        raise UserError(f"{path}: is too large to be a list of files")
    value = files.read_json(path)
    found = value.get("format") if isinstance(value, dict) else None
    if not isinstance(found, int) or found < 1:
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


def _model(value: Mapping[str, Any], folder: epath.Path, listed: Mapping[str, Any]) -> Model:
    spec = CNNSpec.from_dict(value["spec"])
    grid = _grid(value["grid"])
    expected = _expected(spec, grid)
    how = value["normalisation"]
    settings = value["settings"]
    if not value["ensembles"]:
        raise UserError("ensembles: there is none")
    return Model(
        name=str(value["name"]),
        simulated=bool(value["simulated"]),
        negative=str(value["negative"]),
        positive=str(value["positive"]),
        spec=spec,
        grid=grid,
        settings=None if settings is None else PreprocessSettings.from_json(settings),
        never_raw=bool(value["never_raw"]),
        normalisation=Normalisation(
            how["method"], tuple(how["clip"]), how["background"], tuple(how["reference"])
        ),
        ensembles=tuple(_ensemble(each, expected, folder, listed) for each in value["ensembles"]),
        quality={name: _figure(each) for name, each in value["quality"].items()},
        training=tuple(
            TrainingGroup(g["cohort"], g["diagnosis"], g["n"], g["ages"] and tuple(g["ages"]))
            for g in value["training"]
        ),
        notes=tuple(map(str, value["notes"])),
        provenance=value["provenance"],
    )


def _grid(value: Mapping[str, Any]) -> Grid:
    shape = tuple(int(n) for n in value["shape"])
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise UserError(f"grid.shape: {shape} must be three positive numbers of voxels")
    x, y, z = value["origin"]
    origin = (float(x), float(y), float(z))
    return Grid(str(value["name"]), (shape[0], shape[1], shape[2]), float(value["spacing"]), origin)


def _expected(spec: CNNSpec, grid: Grid) -> dict[str, jax.ShapeDtypeStruct]:
    """Names and shapes of a network's arrays, without allocating any."""
    # Counted before the spec is spelled out layer by layer.
    if sum(spec.repetitions) > MAX_LAYERS or len(spec.fc) > MAX_LAYERS:
        raise UserError(f"spec: more than {MAX_LAYERS} conv or FC layers")
    volume = jax.ShapeDtypeStruct((1, *grid.shape, spec.in_channels), np.float32)
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
    stage = str(value["stage"])
    if not re.fullmatch(r"[A-Za-z0-9\-]+", stage):
        raise UserError(f"stage: {stage!r} is not a stage's name")
    networks = []
    limit = sum(8 * math.prod(e.shape) + arrays.HEADER_BYTES for e in expected.values())
    for each in value["networks"]:
        fold = int(each["fold"])
        name = _network_file(stage, fold)
        _check_file(folder, name, listed, limit)
        found = arrays.read(folder / name, expected)
        variables: dict[str, Any] = {}
        for key, array in found.items():
            if not key.startswith("features/"):
                collection, layer, leaf = key.split("/")
                variables.setdefault(collection, {}).setdefault(layer, {})[leaf] = array
        features = {
            kind: FeatureReference(
                found[f"features/{kind}/mean"],
                found[f"features/{kind}/precision"],
                float(each["typical"][kind]),
            )
            for kind in KINDS
        }
        networks.append(
            FoldNetwork(fold, variables, features, frozenset(map(str, each["trained_on"])))
        )
    if not networks or not value["points"]:
        raise UserError(f"ensembles: {stage} has no networks or no operating point")
    heat = value["temperature"]
    if heat is not None and not 0 < float(heat) < np.inf:
        raise UserError(f"ensembles: {stage}: temperature {heat} must be positive")
    return Ensemble(
        stage=stage,
        networks=tuple(networks),
        temperature=None if heat is None else float(heat),
        calibration=str(value["calibration"]),
        points=tuple(map(_point, value["points"])),
        groups=tuple(
            ScoreGroup(
                str(g["cohort"]),
                str(g["diagnosis"]),
                int(g["label"]),
                bool(g["held_out"]),
                _distribution(g["scores"]),
            )
            for g in value["groups"]
        ),
        tested=tuple(
            Tested(str(t["cohort"]), t["n_positive"], t["n_negative"], Interval(**t["auc"]))
            for t in value["tested"]
        ),
        distance_limits={kind: float(value["distance_limits"][kind]) for kind in KINDS},
        distance_n=int(value["distance_n"]),
    )


def _distribution(value: Mapping[str, Any]) -> Distribution:
    found = tuple(map(float, value["percentiles"]))
    if len(found) != len(PERCENTS):
        raise UserError(f"scores.percentiles: {len(found)} values, not {len(PERCENTS)}")
    return Distribution(int(value["n"]), found)


def _point(value: Mapping[str, Any]) -> OperatingPoint:
    rates = tuple(
        CohortRates(
            str(r["cohort"]),
            *(Rate(r[k]["n"], Interval(**r[k]["share"])) for k in ("sensitivity", "specificity")),
        )
        for r in value["rates"]
    )
    return OperatingPoint(str(value["name"]), float(value["threshold"]), str(value["basis"]), rates)


def _figure(value: Mapping[str, Any]) -> FigureReference:
    low, high = value["low"], value["high"]
    return FigureReference(
        n=int(value["n"]),
        median=float(value["median"]),
        low=-np.inf if low is None else float(low),
        high=np.inf if high is None else float(high),
    )
