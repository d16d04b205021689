"""One script for the day a card is there: what a GPU or TPU makes of this project, in 8 minutes.

    python benchmarks/accelerator.py --json card.json --wheels WHEELS   # where the card is
    python benchmarks/accelerator.py --json cpu.json --cpu              # at 4 mm, in 3 minutes

It needs no network: JAX and PyTorch must be there, and what else is missing is installed from a
folder of wheels (made elsewhere by ``pip download -d WHEELS .``) into a folder that is removed at
the end. Parts run one after another, the most important first, each in processes of its own; what a
part found is in the file of ``--json`` as soon as it is there, and a part that fails says so there:

- ``machine``: devices and versions, bytes and multiply-adds a second of a plain copy and product;
- ``parity``: every form of each layer against the reference on the device, and a training step
  against the CPU's;
- ``steps``: a step and inference of ours (measured forms, each form, plain Linen) and of PyTorch
  (eager, compiled, channels-last; autocast for bfloat16), taking turns, with peak memory, and the
  share of the time that bytes and arithmetic alone would take;
- ``extrapolated``: the paper's whole study, from the measured steps;
- ``trace``: the ten longest kernels of a step;
- ``study``: five folds trained from a store, with the share of time waiting for volumes;
- ``repeats``: how far the losses of equal steps are apart, taken again by the same program and by
  one that was compiled anew; ``repeats-ordered``: the same where XLA is to add up in one order,
  whose price ``ours-ordered`` of ``steps`` tells;
- ``beside``: a step of one network of CNN-5 and of several side by side on the device, at 2 mm.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import SHAPES
from train_step import ORDERED, ROOT, Contender, arithmetic, ordered

REPEATS, REPEATS_ORDERED = "repeats", "repeats-ordered"
PARTS = (
    "machine", "parity", "steps", "extrapolated", "trace", "study", REPEATS, REPEATS_ORDERED,
    "beside",
)  # fmt: skip
EACH_FORM = ("ours-xla", "ours-lanes", "ours-pallas", "linen")
TORCH = ("torch-eager", "torch-contiguous", "torch-channels-last")
# Turns of each contender, and runs in each; the first is not counted.
TURNS, IN_A_ROW = 3, 3
# Share of the time that is left to the parts behind the steps, and that one part may take at most.
RESERVED, LONGEST = 0.2, 0.35


@dataclass(frozen=True)
class Case:
    """A step to be timed, and who takes it."""

    member: str
    width: float
    grid: str
    batch: int
    dtype: str
    mode: str
    contenders: tuple[str, ...]

    @property
    def told(self) -> dict[str, Any]:
        """What contenders are told."""
        names = ("member", "width", "grid", "batch", "dtype", "mode")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return "{member} width {width:g}, {grid}, batch {batch}, {dtype}, {mode}".format(
            **self.told
        )


def cases(asked: argparse.Namespace) -> list[Case]:
    """The cases in the order of their importance."""
    if asked.tiny:
        return [Case("cnn5", 0.25, "tiny", 2, "float32", "train", ("ours",))]
    if asked.cpu:
        two = ("ours", "torch-channels-last")
        return [
            Case("cnn5", 1.0, "demo", 2, "float32", "train", (*two, "linen", "torch-contiguous")),
            Case("cnn5", 1.0, "demo", 2, "float32", "inference", two),
            Case("cnn5", 1.0, "demo", 2, "bfloat16", "train", two),
            Case("cnn5", 0.25, "tiny", 2, "float32", "train", ("ours-measure",)),
        ]
    few, narrow = ("ours", "torch-channels-last", "torch-eager"), "bfloat16"
    first = Case("cnn5", 1.0, "paper", 2, narrow, "train", ("ours", ORDERED, *EACH_FORM, *TORCH))
    return [
        first,
        Case("cnn5", 1.0, "paper", 16, narrow, "train", few),
        Case("cnn10", 1.0, "paper", 2, narrow, "train", few),
        Case("cnn5", 4.0, "paper", 2, narrow, "train", few),
        Case("cnn5", 1.0, "paper", 16, narrow, "inference", few),
        Case("cnn5", 1.0, "paper", 2, "float32", "train", few),
        *(
            Case(member, width, grid, batch, dtype, mode, few)
            for mode in ("train", "inference")
            for dtype in (narrow, "float32")
            for grid in ("paper", "dev")
            for batch in (2, 16)
            for member, width in (("cnn5", 1.0), ("cnn10", 1.0), ("cnn5", 4.0))
        ),
    ]


class Report:
    """What was found, in a file that is written anew with every result."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.found = path, dict[str, Any]()
        self.seconds, self._started = seconds, time.monotonic()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._started + self.seconds - time.monotonic()

    @property
    def left_for_steps(self) -> float:
        """Seconds that are left but for the parts behind the steps."""
        return self.left - RESERVED * self.seconds

    def put(self, part: str, result: Any) -> None:
        """Write a result."""
        self.found[part] = result
        self.found["seconds"] = round(self.seconds - self.left, 1)
        self.found.setdefault("ended_at", {})[part] = self.found["seconds"]
        beside = self.path.with_name(f".{self.path.name}.tmp")
        beside.write_text(json.dumps(self.found, indent=2) + "\n", encoding="utf-8")
        beside.replace(self.path)


def missing_wheels(folder: Path) -> list[Path]:
    """Wheels of what is not installed."""
    found = []
    for wheel in sorted(folder.glob("*.whl")):
        try:
            importlib.metadata.version(wheel.name.partition("-")[0])
        except importlib.metadata.PackageNotFoundError:
            found.append(wheel)
    return found


def install(wheels: list[Path], target: str) -> None:
    """Install wheels into a folder that processes of this script look into last."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", target, *map(str, wheels)], check=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), target)))


def part(name: str, asked: argparse.Namespace, report: Report, most: float) -> Any:
    """The result of a part of `accelerator_parts.py`, or why there is none."""
    told = {"cpu": asked.cpu, "tiny": asked.tiny, "found": report.found}
    told["grid"] = "tiny" if asked.tiny else "demo" if asked.cpu else "paper"
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "asked.json", Path(folder) / "found.json"
        question.write_text(json.dumps(told), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.accelerator_parts", name]
        try:
            done = subprocess.run(
                [*command, str(question), str(answer)],
                cwd=ROOT, capture_output=True, encoding="utf-8", timeout=max(most, 1),
                env=os.environ | (ordered(os.environ) if name == REPEATS_ORDERED else {}),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {most:.0f} s"}
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1:]}
        return json.loads(answer.read_text(encoding="utf-8"))


def timed(case: Case, choices: str, report: Report) -> dict[str, Any]:
    """The figures of every contender of a case; of those that fail, why."""
    warm_up = {"warm_up": 1, "at_once": 16, "choices": choices}
    running = {name: Contender(name, "tuned", case.told | warm_up) for name in case.contenders}
    failed: dict[str, str] = {}

    def each(call: Any) -> None:
        for name, contender in list(running.items()):
            try:
                call(contender)
            except (RuntimeError, OSError) as error:
                failed[name] = str(error)
                contender.kill()
                del running[name]

    each(lambda contender: contender.wait(max(report.left_for_steps, 5)))
    for turn in range(TURNS):
        if turn and report.left_for_steps < 0:
            break
        for number in range(IN_A_ROW):
            each(lambda contender, number=number: contender.step(counted=number > 0))
    rows: list[dict[str, Any]] = []
    each(lambda contender: rows.append(contender.finish()))
    return {**case.told, "rows": rows, "failed": failed}


def with_shares(found: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """The figures with the time that bytes and arithmetic alone would take, and our share of it."""
    gflop = arithmetic(found)
    found["gflop"] = gflop
    for row in found["rows"]:
        if row.get("bytes") and "bytes_per_s" in machine:
            by_bytes = row["bytes"] / machine["bytes_per_s"]
            by_arithmetic = 1e9 * gflop / machine["flops_per_s"][found["dtype"]]
            row["ms_by_bytes"], row["ms_by_arithmetic"] = 1e3 * by_bytes, 1e3 * by_arithmetic
            row["share"] = 1e3 * max(by_bytes, by_arithmetic) / row["median_ms"]
    return found


def steps(asked: argparse.Namespace, report: Report) -> Iterator[dict[str, Any]]:
    """The figures of each case for which there is time."""
    longest, done = 0.0, set[Case]()
    with tempfile.TemporaryDirectory() as choices:
        for case in cases(asked):
            if case in done:
                continue
            done.add(case)
            if report.left_for_steps < 1.2 * longest:
                yield {**case.told, "skipped": "no time was left"}
                continue
            begun = time.monotonic()
            found = with_shares(timed(case, choices, report), report.found["machine"])
            longest = max(longest, time.monotonic() - begun)
            print(table(case, found), flush=True)
            yield found


def table(case: Case, found: dict[str, Any]) -> str:
    """Lines of a case for people."""
    lines = [str(case)]
    for row in found["rows"]:
        memory = row["device_mib"] or row["peak_mib"]
        share = f"  {row['share']:.0%} of bytes and arithmetic" if "share" in row else ""
        name, time = row["contender"], row["median_ms"]
        lines.append(f"  {name:<22}{time:>10.2f} ms{memory:>9} MiB{share}")
    return "\n".join(lines + [f"  {name}: {why}" for name, why in found["failed"].items()])


def main() -> int:
    """Run the parts; 1 where one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where results are written")
    parser.add_argument("--minutes", type=float, help="in all; default: 8, with --cpu 3")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of what is not installed")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, at 4 mm")
    parser.add_argument("--tiny", action="store_true", help="with --cpu: smaller still, a test")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    if asked.cpu or asked.tiny:
        os.environ["JAX_PLATFORMS"] = "cpu"
    report = Report(asked.json, 60 * (asked.minutes or (3 if asked.cpu or asked.tiny else 8)))
    report.put("date", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    assert set(SHAPES) >= {case.grid for case in cases(asked)}
    with tempfile.TemporaryDirectory() as target:
        if asked.wheels and (wheels := missing_wheels(asked.wheels)):
            install(wheels, target)
        for name in PARTS:
            if name not in asked.parts:
                continue
            if report.left < 5:
                report.put(name, {"skipped": "no time was left"})
            elif name == "steps":
                for found in steps(asked, report):
                    report.put(name, [*report.found.get(name, []), found])
            else:
                result = part(name, asked, report, min(report.left, LONGEST * report.seconds))
                report.put(name, result)
                print(f"{name}: {json.dumps(result)[:300]}", flush=True)
    bad = [name for name in asked.parts if "failed" in report.found.get(name, {})]
    bad += [str(each["failed"]) for each in report.found.get("steps", []) if each.get("failed")]
    print(f"{asked.json}: {report.found['seconds']:.0f} s" + (f"; failed: {bad}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
