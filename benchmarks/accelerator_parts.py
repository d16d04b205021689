"""Parts of `accelerator.py` that compute with JAX, each in a process of its own."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "libtpu", "flax", "torch", "nvidia-cudnn-cu12")
# Distance of a training step on the device from the CPU's, as a share: float32 may be TF32 there.
_NEAR = 2e-2
_REPEATED = 20  # Steps whose losses are compared.


def machine(asked: dict[str, Any]) -> dict[str, Any]:
    """Devices, versions, and what a plain copy and a plain product reach."""
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    numbers, side = (1 << 24, 1024) if on_cpu else (1 << 28, 8192)
    copied = _best(jax.jit(lambda x: x + 1), jnp.ones(numbers, jnp.float32))
    rates = {}
    for dtype in ("bfloat16", "float32"):
        x = jnp.ones((side, side), dtype)
        rates[dtype] = 2 * side**3 / _best(jax.jit(lambda x: x @ x), x)
    return {
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "memory": (device.memory_stats() or {}).get("bytes_limit"),
        "driver": _driver(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        "bytes_per_s": 8 * numbers / copied,
        "flops_per_s": rates,
    }


def _best(program: Any, x: Any) -> float:
    times = []
    for _ in range(6):
        asked = time.perf_counter()
        jax.block_until_ready(program(x))
        times.append(time.perf_counter() - asked)
    return min(times)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8").stdout.strip()
    except OSError:
        return None


def parity(asked: dict[str, Any]) -> dict[str, Any]:
    """Forms that agree with the reference and forms that do not, and a step against the CPU's."""
    from mri_jax.models import CNNSpec, chosen, measuring

    device = jax.devices()[0]
    size = (9, 8, 11) if asked["tiny"] else (25, 29, 27) if asked["cpu"] else (49, 57, 51)
    layers: list[chosen.LayerKind] = []
    for dtype in ("float32",) if asked["cpu"] else ("float32", "bfloat16"):
        counts = ("cnn5", 1 if asked["cpu"] else 2), ("cnn10", 0 if asked["cpu"] else 4)
        for member, count in counts:
            spec = CNNSpec.preset(member, dtype=dtype)
            layers += chosen.layers_of(spec, size, 2, device.device_kind, "")[:count]
    found = []
    for layer in layers:
        forms = measuring.candidates(layer, device.platform)
        made = measuring.measured(measuring.prepared(layer, forms, device), device)
        found.append(
            {"layer": str(layer), "dtype": layer.dtype, **asdict(made), "pool": layer.pool}
        )
    step = _against_cpu(*((0.25, (32, 35, 33)) if asked["cpu"] else (1.0, (48, 56, 48))))
    return {"layers": found, **step, "agrees": step["apart"] < _NEAR}


def _against_cpu(width: float, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Losses of three float32 steps on the device and on the CPU, and how far they are apart."""
    from functools import partial

    from mri_jax.training.step import train_step

    cpu = jax.devices("cpu")[0]
    settings, begun, batch = _training(width, shape, "float32", dropout=(0, 0, 0))
    losses = []
    for device, forms in ((jax.devices()[0], "xla"), (cpu, "reference")):
        state, there = jax.device_put((begun, batch), device)
        step = jax.jit(partial(train_step, settings, forms=forms))
        losses.append([])
        for _ in range(3):
            state, metrics = step(state, there)
            losses[-1].append(float(metrics["loss"]))
    apart = np.abs(np.subtract(*losses)).max() / max(losses[1])
    return {"device_losses": losses[0], "cpu_losses": losses[1], "apart": float(apart)}


def _training(width: float, shape: tuple[int, int, int], dtype: str, **more: Any) -> Any:
    """Settings of a step of CNN-5, the state before it and a batch, half of it a constant."""
    from mri_jax.keys import random_key
    from mri_jax.models import CNNSpec
    from mri_jax.models.cnn import fresh_variables
    from mri_jax.training.state import Batch
    from mri_jax.training.step import StepSettings, init_state

    settings = StepSettings(CNNSpec.preset("cnn5", width=width, dtype=dtype, **more))
    x = np.random.default_rng(0).normal(size=(2, *shape, 1)).astype(np.float32)
    x[:, : shape[0] // 2] = -1.25
    batch = Batch(x, np.array([0, 1], np.int32), np.ones(2, np.float32))
    with jax.default_device(jax.devices("cpu")[0]):
        variables = fresh_variables(settings.spec, shape, jnp.asarray(random_key(0, "init")))
        state = init_state(settings, variables, random_key(0, "dropout"))
    return settings, jax.device_get(state), batch


def extrapolated(asked: dict[str, Any]) -> dict[str, Any]:
    """Hours of the paper's whole study on one device, from the steps that were timed."""
    from configs import paper
    from mri_jax.models import CNNSpec, summary
    from mri_jax.planning import simulated
    from mri_jax.planning.plan import EvaluateStage, TrainStage
    from mri_jax.planning.planner import make_plan
    from mri_jax.settings.study import Study
    from mri_jax.volumes.grids import GRIDS

    def work(spec: CNNSpec) -> float:
        return sum(each.multiply_adds for each in summary.layers(spec, GRIDS["paper"].shape))

    rates: dict[tuple[str, CNNSpec | None], float] = {}
    for found in asked["found"].get("steps", []):
        ours = [row["median_ms"] for row in found.get("rows", []) if row["contender"] == "ours"]
        if not ours:
            continue
        spec = CNNSpec.preset(found["member"], width=found["width"])
        size = sum(each.multiply_adds for each in summary.layers(spec, _shape(found["grid"])))
        rate = min(ours) / 1e3 / (size * found["batch"])
        # The first case of a kind is the one that matters most.
        rates.setdefault((found["mode"], spec), rate)
        rates.setdefault((found["mode"], None), rate)

    if not rates:
        return {"failed": "no step was timed"}
    preset = "smoke" if asked["tiny"] else "paper"
    study = Study.parse(paper.get_config(preset).to_dict())
    plan = make_plan(study, simulated.catalogue_to_make(study))

    def seconds(mode: str, spec: CNNSpec) -> float:
        """Of a volume: by its own network, else by the arithmetic of another one."""
        plain = CNNSpec(**{**asdict(spec), "dtype": "float32"})
        third = rates.get(("train", None), 0.0) / 3
        rate = rates.get((mode, plain)) or rates.get((mode, None), third)
        return rate * work(spec)

    hours: Counter[str] = Counter()
    for stage in plan.stages():
        if isinstance(stage, TrainStage):
            steps = len(stage.train) // stage.fit.batch * stage.fit.stopping.max_epochs
            held_out = len(stage.validation) * stage.fit.stopping.max_epochs
            spec = stage.fit.step.spec
            hours[stage.kind] += steps * stage.fit.batch * seconds("train", spec) / 3600
            hours["validation"] += held_out * seconds("inference", spec) / 3600
        elif isinstance(stage, EvaluateStage):
            spec = stage.network.fit.step.spec
            hours["evaluation"] += len(stage.tested) * seconds("inference", spec) / 3600
    return {
        "study": f"configs/paper.py:{preset}, all epochs, one device, no compiling or reading",
        "stages": len(plan.stages()),
        "hours": dict(hours),
        "hours_in_all": sum(hours.values()),
        "measured": [f"{mode} {'others' if spec is None else spec}" for mode, spec in rates],
    }


def _shape(grid: str) -> tuple[int, int, int]:
    from benchmarks.contenders import SHAPES

    return SHAPES[grid]


def trace(asked: dict[str, Any]) -> dict[str, Any]:
    """The ten longest kernels of the first case's step, in ms a step, and all of them together."""
    from benchmarks import contenders

    narrow = "float32" if asked["cpu"] or asked["tiny"] else "bfloat16"
    width = 0.25 if asked["tiny"] else 1.0
    case = {"member": "cnn5", "width": width, "grid": asked["grid"], "batch": 2, "dtype": narrow}
    case |= {"mode": "train", "contender": "ours", "at_once": 4}
    steps = contenders.jax_step(case)
    steps.run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            steps.run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        spent = _spent(jax.profiler.ProfileData.from_file(str(path)))
    total = sum(spent.values())
    longest = {name: 1e-6 * ns / steps.at_once for name, ns in spent.most_common(10)}
    return {**case, "ms": 1e-6 * total / steps.at_once, "longest": longest}


def _spent(data: Any) -> Counter[str]:
    """Nanoseconds by kernel: those of the devices' own rows, or of XLA's threads on a CPU."""
    spent: Counter[str] = Counter()
    planes = [p for p in data.planes if p.name.startswith("/device:")]
    on_device = bool(planes)
    for plane in planes or [p for p in data.planes if p.name == "/host:CPU"]:
        for line in plane.lines:
            if ("XLA Ops" in line.name or "Stream" in line.name) if on_device else (
                "XLA" in line.name and "python" not in line.name
            ):  # fmt: skip
                for event in line.events:
                    if not event.name.startswith("ThunkExecutor"):  # which holds the kernels
                        spent[event.name] += event.duration_ns
    return spent


def study(asked: dict[str, Any]) -> dict[str, Any]:
    """Five folds trained from a store of made volumes, which are streamed, with the time waited."""
    from mri_jax.volumes.grids import GRIDS
    from tests.tiny import GRID, make_cohorts

    grid = GRID if asked["tiny"] else GRIDS[asked["grid"]]
    fields: dict[str, Any] = {
        "targets": "('ADNI2',)", "data.placement": "stream", "train.folds": 5,
        "train.min_epochs": 3, "train.max_epochs": 3, "train.min_steps": 0,
        "train.patience_steps": 0, "baselines.voxels": False,
    }  # fmt: skip
    if asked["tiny"]:
        network = {"preset": "", "repetitions": "(1,1)", "filters": "(4,8)", "fc": "(8,)"}
        fields |= {f"model.{k}": v for k, v in network.items()} | {"model.dropout": "(0.5,0.)"}
    with tempfile.TemporaryDirectory() as name:
        table, store = make_cohorts(Path(name), 10, ("ADNI1", "ADNI2"), grid=grid)
        fields |= {"data.cohort": table, "data.store": store}
        started = time.perf_counter()
        preset = "paper" if asked["grid"] == "paper" else "demo"
        done = subprocess.run(
            [
                sys.executable, str(ROOT / "launch.py"), "--noreport",
                f"--config={ROOT}/configs/baseline.py:{preset}", f"--workdir={name}/run",
                *(f"--config.{field}={value}" for field, value in fields.items()),
            ],
            cwd=ROOT, capture_output=True, encoding="utf-8",
        )  # fmt: skip
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        lines = Path(name, "run", "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        made = json.loads(Path(name, "run", "provenance.json").read_text(encoding="utf-8"))
    epochs = [row for row in map(json.loads, lines) if row["epoch"] > 1]
    return {
        "seconds": seconds,
        "said": [line for line in done.stdout.splitlines() if line.startswith("conv layers")],
        "forms": made["forms"],
        "folds": len({row["fold"] for row in epochs}),
        "epoch_seconds": float(np.mean([row["seconds"] for row in epochs])),
        "waiting": float(np.mean([row["waiting"] for row in epochs])),
    }


def beside(asked: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a step, by how many networks take it side by side, and their gigabytes."""
    from mri_jax.models import CNNSpec, choice
    from mri_jax.training import cost
    from mri_jax.training.job import FitSettings
    from mri_jax.training.step import StepSettings
    from mri_jax.training.stopping import StoppingSettings
    from mri_jax.training.wave import Wave

    small = asked["cpu"] or asked["tiny"]
    shape = (16, 18, 17) if small else _shape("dev")
    spec = (
        CNNSpec(repetitions=(1, 1), filters=(4, 8), fc=(8,), dropout=(0.5, 0.0))
        if small
        else CNNSpec.preset("cnn5", dtype="bfloat16")
    )
    fit = FitSettings(StepSettings(spec), batch=2, stopping=StoppingSettings(1, 1, 1))
    wave = Wave(tuple(jax.devices()[:1]), forms=choice.XLA)
    found = {}
    for count in (1, 2) if small else (1, 2, 4):
        made = cost.of_step(fit, shape, wave.of(count), 1 << 40)
        found[count] = {"ms": 1e3 * made.again, "gigabytes": made.bytes / 1e9}
    return {"shape": shape, "dtype": spec.dtype, "networks": found}


def repeats(asked: dict[str, Any]) -> dict[str, Any]:
    """How far losses of equal steps are apart, as a share: by one program, and compiled anew."""
    narrow = jax.devices()[0].platform != "cpu"
    width, shape = (1.0, (48, 56, 48)) if narrow else (0.25, (32, 35, 33))
    settings, state, batch = _training(width, shape, "bfloat16" if narrow else "float32")

    def losses(step: Any) -> np.ndarray:
        now, found = state, []
        for _ in range(_REPEATED):
            now, metrics = step(now, batch)
            found.append(float(metrics["loss"]))
        return np.array(found)

    def compiled() -> Any:
        from mri_jax.training.step import train_step

        jax.clear_caches()
        return jax.jit(lambda s, b: train_step(settings, s, b, forms="xla"))

    program = compiled()
    first, again, anew = losses(program), losses(program), losses(compiled())
    apart = {"same_program": again, "compiled_anew": anew}
    return {
        "steps": _REPEATED,
        "losses": first.tolist(),
        **{name: float(np.abs(of - first).max() / first.max()) for name, of in apart.items()},
    }


if __name__ == "__main__":
    name, question, answer = sys.argv[1:]
    parts = {"machine": machine, "parity": parity, "extrapolated": extrapolated}
    parts |= {"trace": trace, "study": study, "beside": beside}
    parts |= {"repeats": repeats, "repeats-ordered": repeats}
    result = parts[name](json.loads(Path(question).read_text(encoding="utf-8")))
    Path(answer).write_text(json.dumps(result), encoding="utf-8")
