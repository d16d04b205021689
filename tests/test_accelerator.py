"""The script for the day a card is there runs on the CPU, at a size that no card would be asked."""

import json
import os
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import jax
import pytest

from benchmarks import accelerator_parts, contenders
from mri_jax.models import CNNSpec, measuring
from mri_jax.models.chosen import Choice
from mri_jax.training.wave import Wave
from tests.compiling import XLA_FLAGS
from tests.conftest import ROOT


def script(path, *more):
    """Run the script at its smallest; returns what it wrote and printed."""
    command = [sys.executable, "benchmarks/accelerator.py", "--cpu", "--tiny", "--json", str(path)]
    done = subprocess.run(
        [*command, *more], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=400,
        env={**os.environ, "XLA_FLAGS": XLA_FLAGS},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


# Multiply-adds of a volume: conv1 of 2 filters, without a gradient of its input, the others of 4,
# 8, 16 and 32, and the FC layers.
OTHERS = 4352 * 216 + 512 * 864 + 64 * 3456 + 8 * 13824 + 32 * 128 + 128 * 64 + 64 * 2
GFLOP = 2e-9 * 2 * (2 * (32 * 35 * 33) * 54 + 3 * OTHERS)


def test_shares_are_of_what_takes_longer_and_hours_go_with_the_step(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accelerator

    (case,) = accelerator.cases(SimpleNamespace(tiny=True, cpu=True))
    machine = {"bytes_per_s": 1e11, "flops_per_s": {"float32": 2e9}}
    in_all = []
    for median in (40.0, 80.0):
        row = {"contender": "ours", "median_ms": median, "bytes": 3e9}
        found = accelerator.with_shares({**case.told, "rows": [row]}, machine)
        assert found["gflop"] == pytest.approx(GFLOP)
        assert row["ms_by_bytes"] == pytest.approx(30)
        assert row["ms_by_arithmetic"] == pytest.approx(1e3 * GFLOP / 2)
        assert row["share"] == pytest.approx(max(30, 500 * GFLOP) / median)
        paper = accelerator_parts.extrapolated({"tiny": True, "found": {"steps": [found]}})
        assert set(paper["hours"]) == {"source", "tune", "validation", "evaluation"}
        assert paper["hours_in_all"] == pytest.approx(sum(paper["hours"].values()))
        in_all.append(paper["hours_in_all"])
    assert in_all[1] == pytest.approx(2 * in_all[0])


def test_steps_are_timed_and_the_paper_extrapolated(tmp_path):
    found, said = script(tmp_path / "found.json", "--parts", "machine", "steps", "extrapolated")
    assert found["machine"]["device"] == "cpu"
    assert 1e8 < found["machine"]["bytes_per_s"] < 1e13
    (case,) = found["steps"]
    assert case["failed"] == {}
    (ours,) = case["rows"]
    assert ours["contender"] == "ours"
    assert 0 < ours["min_ms"] <= ours["median_ms"] < 1e4
    assert case["gflop"] == pytest.approx(GFLOP)
    assert ours["share"] == pytest.approx(
        max(ours["ms_by_bytes"], ours["ms_by_arithmetic"]) / ours["median_ms"]
    )
    hours = found["extrapolated"]["hours"]
    assert set(hours) == {"source", "tune", "validation", "evaluation"}
    assert found["extrapolated"]["hours_in_all"] == pytest.approx(sum(hours.values()))
    assert "cnn5 width 0.25, tiny, batch 2, float32, train" in said


@pytest.mark.slow
def test_every_part_runs(tmp_path):
    found, _ = script(tmp_path / "found.json", "--minutes", "6")
    assert found["parity"]["agrees"]
    assert [each["refused"] for each in found["parity"]["layers"]] == [{}]
    assert len(found["trace"]["longest"]) == 10
    assert found["study"]["folds"] == 5
    assert 0 <= found["study"]["waiting"] <= 1
    one, two = (found["beside"]["networks"][count]["gigabytes"] for count in "12")
    assert 1.3 * one < two < 3 * one
    for part in ("repeats", "repeats-ordered"):
        assert len(found[part]["losses"]) == found[part]["steps"] == 20
        # On a CPU everything is added up in one order.
        assert found[part]["same_program"] == found[part]["compiled_anew"] == 0


def test_sums_in_one_order_are_asked_for_beside_other_flags(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accelerator
    import train_step

    flag = "--xla_gpu_deterministic_ops=true"
    assert train_step.ordered({}) == {"XLA_FLAGS": flag}
    assert train_step.ordered({"XLA_FLAGS": "--a=1"}) == {"XLA_FLAGS": f"--a=1 {flag}"}
    started = []

    def noted(command, env, **more):
        started.append(env.get("XLA_FLAGS"))
        return SimpleNamespace(returncode=1, stderr="not run")

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(subprocess, "run", noted)
    for name in ("ours", "ours-ordered"):
        train_step.Contender(name, "tuned", {})._errors.close()
    report = accelerator.Report(tmp_path / "found.json", 100)
    asked = SimpleNamespace(cpu=True, tiny=True)
    for name in ("repeats", "repeats-ordered"):
        assert accelerator.part(name, asked, report, 60) == {"failed": ["not run"]}
    assert started == [None, flag, None, flag]


def test_a_part_that_fails_is_on_record_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accelerator

    report = accelerator.Report(tmp_path / "found.json", 100)
    asked = type("Asked", (), {"cpu": True, "tiny": True})
    found = accelerator.part("nonsense", asked, report, 60)
    assert found == {"failed": ["KeyError: 'nonsense'"]}
    assert accelerator.part("machine", asked, report, 0) == {"failed": "took longer than 0 s"}
    report.put("parity", found)
    assert json.loads(report.path.read_text(encoding="utf-8"))["parity"] == found
    case = accelerator.Case("cnn9", 1.0, "tiny", 2, "float32", "train", ("ours",))
    timed = accelerator.timed(case, str(tmp_path), report)
    assert timed["rows"] == []
    assert "preset: 'cnn9' must be one of" in timed["failed"]["ours"]


def test_without_a_timed_step_nothing_is_extrapolated():
    assert accelerator_parts.extrapolated({"found": {}}) == {"failed": "no step was timed"}


def test_ours_takes_the_forms_that_are_measured_or_were(tmp_path, monkeypatch):
    asked = []

    def found(prepared, device, tried):
        layer = prepared.layer
        asked.append(layer)
        return Choice(layer, "xla" if layer.channels == 1 else "reference", {"xla": 1.0})

    def uncompiled(layer, forms, device):
        return measuring.Prepared(layer, forms, {}, RuntimeError(), None)

    monkeypatch.setattr(measuring, "prepared", uncompiled)
    monkeypatch.setattr(measuring, "measured", found)
    spec = CNNSpec.preset("cnn5", width=0.25)
    case = {"member": "cnn5", "grid": "tiny", "batch": 2, "choices": str(tmp_path)}
    wave = Wave(tuple(jax.local_devices()[:1]), forms="measure")
    first, again = (contenders.measured(wave, spec, case) for _ in range(2))
    assert first == again
    assert len(asked) == 5
    assert [each.form for each in first.forms] == ["xla", *["reference"] * 4]
    assert asked[1].size == (16, 17, 16)


def test_a_wheel_of_what_is_missing_is_installed_without_network(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accelerator

    wheel = tmp_path / "not_there-1.0-py3-none-any.whl"
    about = "not_there-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("not_there.py", "VALUE = 7\n")
        named = "Metadata-Version: 2.1\nName: not-there\nVersion: 1.0\n"
        file.writestr(f"{about}/METADATA", named)
        plain = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{about}/WHEEL", plain)
        file.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    accelerator.install(accelerator.missing_wheels(tmp_path), str(tmp_path / "target"))
    code = "import not_there; print(not_there.VALUE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.split() == [b"7"]


def test_wheels_of_what_is_there_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accelerator

    for name in ("numpy-2.0-py3-none-any.whl", "not_there-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert [p.name for p in accelerator.missing_wheels(tmp_path)] == [
        "not_there-1.0-py3-none-any.whl"
    ]
