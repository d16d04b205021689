"""One contender of `train_step.py` in a process of its own: a step each time it is told to.

Reads a case as JSON from its first argument, warms up, prints ``ready``, then for every line on
standard input takes one step and prints its seconds; at the end of input it prints its peak memory
in MiB (of the process, and of the device where it has its own), its library's version and, of ours,
what XLA says of the program.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from mri_jax.models import CNNSpec
    from mri_jax.training.step import StepSettings
    from mri_jax.training.wave import Wave

SHAPES = {
    "tiny": (32, 35, 33),
    "demo": (48, 56, 48),
    "dev": (96, 112, 96),
    "paper": (181, 217, 181),
}
BACKGROUND = -1.25


class Steps(NamedTuple):
    """How a contender takes its steps.

    Attributes:
      run: Takes them and waits for them.
      version: Of its library, and what it runs on.
      at_once: How many steps ``run`` takes.
      program: Of ours: bytes and arithmetic of a step as XLA counts them, temporaries, forms.
    """

    run: Callable[[], object]
    version: str
    at_once: int = 1
    program: dict[str, Any] | None = None


def volumes(case: dict) -> np.ndarray:
    """(N, X, Y, Z, 1) float32, a little over 40% of it a constant, as after skull stripping."""
    shape = SHAPES[case["grid"]]
    x = np.random.default_rng(0).normal(size=(case["batch"], *shape, 1)).astype(np.float32)
    x[:, : round(0.42 * shape[0])] = BACKGROUND
    return x


def jax_step(case: dict) -> Steps:
    """A step of this project, of all layers or the head (``ours-head``), by a form (``ours-xla``).

    Run as `launch.py` runs it: on a CPU as one device, by native kernels that use all its cores, on
    an accelerator by the forms that are measured to be the fastest.
    """
    import jax
    from etils import epath

    from mri_jax.keys import random_key, typed_key
    from mri_jax.models import choice
    from mri_jax.models.cnn import fresh_variables
    from mri_jax.training import devices, folds, freezing, step
    from mri_jax.training.augment import AugmentSettings
    from mri_jax.training.objectives import PAIRED

    one = {"linen": "reference"} | {f"ours-{form}": form for form in choice.ASKED}
    forms = one.get(case["contender"])
    jax.config.update("jax_enable_compilation_cache", False)
    nowhere = epath.Path("no programs are kept")
    if "at_once" in case:
        folds._STEPS_PER_PROGRAM = case["at_once"]
    wave = devices.start(nowhere, forms=forms).of(1)
    layers = "head" if case["contender"] == "ours-head" else "all"
    spec = spec_of(case, case["dtype"])
    settings = step.StepSettings(spec, rules=freezing.rules_for(layers, spec))
    if case.get("method"):
        settings = adapting(settings, case["method"])
        spec = settings.spec
    if wave.forms == choice.MEASURE:
        wave = measured(wave, spec, case)
    variables = fresh_variables(spec, SHAPES[case["grid"]], random_key(0, "init"))
    own = settings.objective.layers(
        spec, variables["params"], typed_key(random_key(0, "objective"))
    )
    variables = {**variables, "params": {**variables["params"], **own}}
    if case["mode"] == "train" and settings.objective.batches == PAIRED:
        case = {**case, "batch": 2 * case["batch"]}  # as many volumes of the target
    used = f"{len(wave.devices)} x {wave.devices[0].device_kind}"
    version = f"jax {jax.__version__} on {used}, {wave.computed}"
    there = wave.copies(volumes(case))
    rows = np.arange(case["batch"], dtype=np.int32)[None]
    if case["mode"] == "inference":
        stacked = wave.stack([variables])
        evaluate = folds.Programs(wave).evaluate(spec).lower(stacked, there, rows).compile()
        said = about(evaluate, wave)
        return Steps(
            lambda: jax.block_until_ready(evaluate(stacked, there, rows)), version, 1, said
        )
    train = folds.Programs(wave).train(settings, AugmentSettings())
    state = wave.stack([step.init_state(settings, variables, random_key(0, "dropout"))])
    rows = np.repeat(rows[:, None], wave.steps_per_program, axis=1)
    now = folds.Steps(
        rows, rows % 2, np.ones(rows.shape, np.float32), np.ones(rows.shape[:2], bool)
    )

    advance = train.lower(state, there, now).compile()

    def run() -> None:
        nonlocal state
        state, metrics = advance(state, there, now)
        jax.block_until_ready(metrics)

    return Steps(run, version, wave.steps_per_program, about(advance, wave))


def adapting(settings: "StepSettings", name: str) -> "StepSettings":
    """Returns the step of a method that trains from scratch on source and target together."""
    from mri_jax import adaptation
    from mri_jax.planning.fits import gated
    from mri_jax.training.objectives import of_method

    method = adaptation.named(name)
    rates = {rate.name: rate.default for rate in method.rates}
    spec = gated(settings.spec) if method.gated else settings.spec
    return replace(settings, spec=spec, objective=of_method(method.objective, rates, steps=1000))


def measured(wave: "Wave", spec: "CNNSpec", case: dict) -> "Wave":
    """A wave with the fastest form of each layer, measured, or read from ``case["choices"]``."""
    from etils import epath

    from mri_jax.study.choosing import layers_on
    from mri_jax.study.kept_forms import Kept

    with tempfile.TemporaryDirectory() as folder:
        kept = Kept(epath.Path(case.get("choices", folder)), wave.devices[0], _say)
        layers = layers_on(wave, spec, SHAPES[case["grid"]], case["batch"])
        return replace(wave, forms=tuple(kept.of(layers, case["member"]).values()))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def about(program: Any, wave: "Wave") -> dict[str, Any]:
    """What XLA says of a compiled program (of a scan it counts one step), and its forms."""
    cost, memory = program.cost_analysis() or {}, program.memory_analysis()
    forms = wave.forms if isinstance(wave.forms, tuple) else ()
    return {
        "flops": cost.get("flops"),
        "bytes": cost.get("bytes accessed"),
        "temporaries": memory.temp_size_in_bytes if memory else None,
        "forms": [each.form for each in forms] or wave.computed,
    }


def spec_of(case: dict, dtype: str = "float32") -> "CNNSpec":
    """The network of a case."""
    from mri_jax.models import CNNSpec

    options = case.get("options", {})
    return CNNSpec.preset(case["member"], width=case["width"], dtype=dtype, **options)


def torch_network(spec: "CNNSpec", size: tuple[int, ...]) -> "nn.Sequential":
    """The network of a spec in PyTorch, for volumes (N, 1, X, Y, Z) of a size."""
    from torch import nn

    from benchmarks import torch_options

    layers: list[nn.Module] = []
    channels = 1
    for (first, last), block in torch_options.blocks(spec):
        convs: list[nn.Module] = []
        before = channels
        for filters in spec.conv_filters[first - 1 : last]:
            convs += [
                nn.Conv3d(channels, filters, 3, padding=1, bias=False),
                torch_options.norm(spec, filters),
                nn.ReLU(inplace=True),
            ]
            channels = filters
        if spec.residual:
            convs = [torch_options.Residual(nn.Sequential(*convs[:-1]), before, channels)]
        layers += [*convs, nn.MaxPool3d(2)]
        size = tuple(s // 2 for s in size)
        if block in spec.attention_blocks:
            layers.append(torch_options.gate(spec.attention, channels, size))
    layers.append(nn.Flatten())
    features = channels * int(np.prod(size))
    for units, rate in zip((*spec.fc, spec.classes), spec.dropout, strict=True):
        layers += [nn.Dropout(rate), nn.Linear(features, units), nn.ReLU()]
        features = units
    return nn.Sequential(*layers[:-1])


def torch_step(case: dict) -> Steps:
    """The same network and step in PyTorch, contiguous or channels-last-3d."""
    import torch
    from torch import nn

    spec = spec_of(case)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_network(spec, SHAPES[case["grid"]]).to(device)
    x = torch.from_numpy(np.moveaxis(volumes(case), -1, 1).copy()).to(device)
    if case["contender"] == "torch-channels-last":
        model = model.to(memory_format=torch.channels_last_3d)
        x = x.contiguous(memory_format=torch.channels_last_3d)
    labels = (torch.arange(case["batch"]) % 2).to(device)
    cast = torch.autocast(
        device, dtype=torch.bfloat16, enabled=case["dtype"] == "bfloat16", cache_enabled=False
    )
    version = f"torch {torch.__version__} on {device}"
    if device == "cuda" and case["contender"] != "torch-eager":
        model = torch.compile(model)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    if case["mode"] == "inference":
        model.eval()

        def infer() -> None:
            with torch.inference_mode(), cast:
                model(x)
            finish()

        return Steps(infer, version)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=device == "cuda")
    loss_of = nn.CrossEntropyLoss()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = loss_of(model(x), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        finish()

    return Steps(run, version)


def main() -> None:
    """Serve steps until the input ends."""
    case = json.loads(sys.argv[1])
    make = torch_step if case["contender"].startswith("torch") else jax_step
    steps = make(case)
    for _ in range(case["warm_up"]):
        steps.run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        steps.run()
        print((time.perf_counter() - start) / steps.at_once, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"peak_mib": round(peak), "device_mib": device_peak(case["contender"])}
    print(json.dumps({**figures, "version": steps.version, **(steps.program or {})}), flush=True)


def device_peak(contender: str) -> int | None:
    """The most memory that was used of a device that has its own, MiB; else None."""
    if contender.startswith("torch"):
        import torch

        return torch.cuda.max_memory_allocated() >> 20 if torch.cuda.is_available() else None
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] >> 20 if "peak_bytes_in_use" in stats else None


if __name__ == "__main__":
    main()
