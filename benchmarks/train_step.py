"""Seconds a step: this project, its plain Linen path, and PyTorch, taking turns.

    python benchmarks/train_step.py                        # CNN-5, CNN-10, CNN-5 at width 4; dev
    python benchmarks/train_step.py --grid paper --case cnn5
    python benchmarks/train_step.py --case cnn5:2 --mode inference --json results.json
    python benchmarks/train_step.py --together --case cnn5 cnn5:1:attention=se cnn5:1:norm=group

Every contender is a process that waits until it is told to go on; they take turns, so that a slow
spell of the machine falls on all. A turn is some steps in a row, as in training; the first one,
which finds caches and pages cold after the pause, is not counted (``--in-a-row 1`` counts it, and
takes no other). PyTorch runs contiguous and channels-last-3d, and its better median counts. The
peak of the processor's multiply-adds is measured after every turn of ours.
On a CPU ``ours`` takes the native kernels, ``ours-xla`` XLA's forms, ``linen`` the reference;
``ours-head`` trains the FC layers alone; ``ours-ordered`` has XLA for GPUs add up in one order.
A case with ``method=coral`` is the step of that method of adaptation (of ours alone).
``--together``: all cases take turns, and the ratio of each to the first is printed: what an option
costs, on a machine that others use too. ``--allocators``: with ``tuned`` every process has the
malloc settings that `launch.py` gives its own, with ``kept`` the same but that no block goes back
to the system, with ``stock`` none. Needs the extra ``bench``.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import runpy
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from contenders import SHAPES, spec_of

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
TUNED = runpy.run_path(str(ROOT / "mri_jax" / "allocator.py"))["TUNED"]
KEPT = re.sub(r"(mmap_threshold)=\d+", r"\1=17179869184", TUNED)
ALLOCATORS = {"stock": {}, "tuned": {"GLIBC_TUNABLES": TUNED}, "kept": {"GLIBC_TUNABLES": KEPT}}
OURS = ("ours", "ours-xla", "ours-lanes", "ours-volume", "ours-pallas", "ours-measure")
ORDERED = "ours-ordered"
# On GPUs: only algorithms that add up in one order, so that every run gives the same bits.
ORDERED_FLAG = "--xla_gpu_deterministic_ops=true"
CONTENDERS = (
    *OURS,
    ORDERED,
    "ours-head",
    "linen",
    "torch-contiguous",
    "torch-channels-last",
    "torch-eager",
)
USUAL = ("ours", "ours-xla", "ours-head", "linen", "torch-contiguous", "torch-channels-last")


def ordered(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what a process needs whose GPU is to add up in one order."""
    flags = filter(None, (environment.get("XLA_FLAGS"), ORDERED_FLAG))
    return {"XLA_FLAGS": " ".join(flags)}


class Contender:
    """A process of `contenders.py`, which warms up; `wait` returns once it waits."""

    def __init__(self, name: str, allocator: str, case: dict):
        self.name, self.allocator = name, allocator
        environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        there = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment |= {**ALLOCATORS[allocator], "PYTHONPATH": there}
        if name == ORDERED:
            environment |= ordered(environment)
        # Contenders share a device: none takes its memory beforehand.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "benchmarks" / "contenders.py"),
                json.dumps({**case, "contender": name}),
            ],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        self.seconds: list[float] = []

    def wait(self, seconds: float | None = None) -> "Contender":
        """Wait until it is warmed up.

        Raises:
          RuntimeError: It ended, or it took longer; then it is killed.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self.kill()
            raise RuntimeError(f"{self.name}: took longer than {seconds:.0f} s to start")
        if self._read() != "ready":
            raise RuntimeError(f"{self.name} ({self.allocator}) did not start: {self._told()}")
        return self

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # what was not read yet
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _told(self) -> str:
        """Returns the last line of what it said on standard error."""
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def step(self, counted: bool) -> None:
        """Take one step and note its seconds, where it counts."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said = self._read()
        if not said:
            raise RuntimeError(f"{self.name} ({self.allocator}) ended: {self._told()}")
        seconds = float(said)
        if counted:
            self.seconds.append(seconds)

    def finish(self) -> dict:
        """End the process; its figures."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        figures = json.loads(self._read())
        self._end()
        return {
            "contender": self.name,
            "allocator": self.allocator,
            "median_ms": 1e3 * statistics.median(self.seconds),
            "min_ms": 1e3 * min(self.seconds),
            "max_ms": 1e3 * max(self.seconds),
            **figures,
        }


def peak_meter(folder: str) -> Callable[[], float] | None:
    """Returns what measures the GFLOP a second of plain multiply-adds on all cores together.

    Args:
      folder: Where its program is built; None is returned where there is no compiler.
    """
    from mri_jax.errors import UserError
    from mri_jax.models.conv_layer import kernels
    from mri_jax.training.devices import usable_cores

    try:
        compiler = kernels.find_compiler()
    except UserError:
        return None
    program = f"{folder}/peak"
    flags = ["-std=c++20", "-O3", "-march=native", "-Wno-psabi", "-pthread"]
    source = str(ROOT / "benchmarks" / "peak.cpp")
    subprocess.run([compiler, *flags, source, "-o", program], check=True)

    def now() -> float:
        command = [program, str(usable_cores())]
        return float(subprocess.run(command, check=True, capture_output=True).stdout)

    return now


def measure(
    cases: list[dict],
    contenders: list[str],
    allocators: list[str],
    turns: tuple[int, int],
    peak: Callable[[], float] | None,
) -> tuple[list[list[dict]], float | None]:
    """Returns for each case the figures of every contender under every allocator; the median peak.

    Args:
      cases: What is computed, all of them in turns.
      contenders: Who computes it.
      allocators: Under which settings of malloc.
      turns: How many turns each takes, and how many steps a turn.
      peak: Measures the processor's peak after every turn of ours; None: it is not measured.
    """
    of_cases = [
        [Contender(name, allocator, case).wait() for allocator in allocators for name in contenders]
        for case in cases
    ]
    running = [contender for each in of_cases for contender in each]
    rounds, in_a_row = turns
    peaks = []
    for _ in range(rounds):
        for contender in running:
            for number in range(in_a_row):
                contender.step(counted=number > 0 or in_a_row == 1)
            if peak and contender.name == "ours":
                peaks.append(peak())
    figures = [[contender.finish() for contender in each] for each in of_cases]
    return figures, statistics.median(peaks) if peaks else None


def arithmetic(case: dict) -> float:
    """Returns the GFLOP of a step: of convolutions and products, what is computed again left out.

    A training step takes each product three times, the first layer's twice: no gradient of the
    volume is wanted.
    """
    from mri_jax.models import summary

    layers = summary.layers(spec_of(case), SHAPES[case["grid"]])
    first, *others = (layer.multiply_adds for layer in layers)
    times = (2, 3) if case["mode"] == "train" else (1, 1)
    return 2e-9 * case["batch"] * (times[0] * first + times[1] * sum(others))


def share_of_peak(case: dict, rows: list[dict], peak: float) -> str:
    """Returns a line about the arithmetic of a step and what share of the peak ours reaches."""
    gflop = arithmetic(case)
    line = f"  {gflop:.2f} GFLOP a step; multiply-add peak {peak:.0f} GFLOP/s"
    for row in rows:
        if row["contender"] == "ours":
            share = gflop / peak / (row["median_ms"] / 1e3)
            line += f"; ours ({row['allocator']}) reaches {share:.0%} of it"
    return line


def report(case: dict, rows: list[dict]) -> str:
    """A table of one case, with our ratio to each contender and to PyTorch's better form."""
    lines = [
        titled(case),
        f"  {'':<30}{'median':>9}{'min':>9}{'max':>9}{'MiB':>8}{'ours / it':>11}",
    ]
    for row in rows:
        same = [r for r in rows if r["allocator"] == row["allocator"] and r["contender"] == "ours"]
        ratio = f"{same[0]['median_ms'] / row['median_ms']:.2f}" if same else ""
        name = f"{row['contender']} ({row['allocator']})"
        times = "".join(f"{row[k]:>9.0f}" for k in ("median_ms", "min_ms", "max_ms"))
        lines.append(f"  {name:<30}{times}{row['peak_mib']:>8}{ratio:>11}")
    for ours in (r for r in rows if r["contender"] == "ours"):
        for allocator in dict.fromkeys(r["allocator"] for r in rows):
            peers = [
                r
                for r in rows
                if r["contender"].startswith("torch") and r["allocator"] == allocator
            ]
            if peers:
                best = min(peers, key=lambda r: r["median_ms"])
                time = ours["median_ms"] / best["median_ms"]
                memory = ours["peak_mib"] / best["peak_mib"]
                lines.append(
                    f"  ours ({ours['allocator']}) / PyTorch's best ({allocator}): "
                    f"time {time:.2f}, peak memory {memory:.2f}"
                )
    return "\n".join(lines)


def titled(case: dict) -> str:
    """What a case is."""
    title = "{member} width {width:g}, {grid}, batch {batch}, {dtype}, {mode}".format(**case)
    more = {"method": case["method"]} if case.get("method") else {}
    return title + "".join(f", {name} {v}" for name, v in {**case["options"], **more}.items())


def relative(cases: list[dict], figures: list[list[dict]]) -> str:
    """A table of each case's median and least time over those of the first case."""
    lines = [f"relative to {titled(cases[0])}: medians, and least times"]
    for case, rows in zip(cases[1:], figures[1:], strict=True):
        for row, first in zip(rows, figures[0], strict=True):
            ratios = "".join(f"{row[k] / first[k]:>8.3f}" for k in ("median_ms", "min_ms"))
            lines.append(f"  {row['contender']} ({row['allocator']}){ratios}  {titled(case)}")
    return "\n".join(lines)


def _case(text: str, chosen: argparse.Namespace) -> dict:
    """A case as the command line has it: ``cnn5:1:attention=se``, ``cnn5:1:method=dann``."""
    member, width, given = (*text.split(":"), "", "")[:3]
    pairs = (pair.partition("=") for pair in given.split(",") if pair)
    options = {name: value == "True" or value for name, _, value in pairs}
    return {
        "method": options.pop("method", ""),
        "member": member,
        "width": float(width or 1),
        # Of the spec.
        "options": options,
        "grid": chosen.grid,
        "batch": chosen.batch,
        "dtype": chosen.dtype,
        "mode": chosen.mode,
        "warm_up": 2,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case", nargs="+", default=["cnn5", "cnn10", "cnn5:4"], metavar="M[:W[:OPTION=VALUE,...]]"
    )
    parser.add_argument("--grid", choices=["demo", "dev", "paper"], default="dev")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--mode", choices=["train", "inference"], default="train")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--in-a-row", type=int, default=4, metavar="STEPS", help="in every turn")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(USUAL))
    parser.add_argument(
        "--allocators", nargs="+", choices=list(ALLOCATORS), default=["stock", "tuned"]
    )
    parser.add_argument("--together", action="store_true", help="all cases take turns")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    cases = [_case(text, options) for text in options.case]
    results = []
    folder = tempfile.TemporaryDirectory()
    peak = peak_meter(folder.name)
    contenders = [c for c in options.contenders if options.mode == "train" or c != "ours-head"]
    turns = (options.turns, options.in_a_row)
    for some in [cases] if options.together else [[case] for case in cases]:
        figures, gflops = measure(some, contenders, options.allocators, turns, peak)
        for case, rows in zip(some, figures, strict=True):
            print(report(case, rows), flush=True)
            if gflops and any(r["version"].endswith("native") for r in rows):
                print(share_of_peak(case, rows, gflops), flush=True)
            told = {"turns": turns[0], "in_a_row": turns[1], "peak_gflops": gflops}
            results.append({"case": case, **told, "rows": rows})
        if len(some) > 1:
            print(relative(some, figures), flush=True)
    if options.json:
        machine = {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "date": datetime.date.today().isoformat(),
        }
        options.json.write_text(
            json.dumps({"machine": machine, "results": results}, indent=2), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
