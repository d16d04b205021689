"""The script for the day a card is there runs on the CPU, at a size that no card would be asked."""

import json
import subprocess
import sys

import pytest

from benchmarks import accelerator_parts
from tests.conftest import ROOT


def script(path, *more):
    """Run the script at its smallest; returns what it wrote and printed."""
    command = [sys.executable, "benchmarks/accelerator.py", "--cpu", "--tiny", "--json", str(path)]
    done = subprocess.run(
        [*command, *more], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


def test_steps_are_timed_and_the_paper_extrapolated(tmp_path):
    found, said = script(tmp_path / "found.json", "--parts", "machine", "steps", "extrapolated")
    assert found["machine"]["device"] == "cpu"
    assert 1e8 < found["machine"]["bytes_per_s"] < 1e13
    (case,) = found["steps"]
    assert case["failed"] == {}
    (ours,) = case["rows"]
    assert ours["contender"] == "ours"
    assert 0 < ours["min_ms"] <= ours["median_ms"] < 1e4
    # Multiply-adds of a volume: conv1 of 2 filters, without a gradient of its input, the others
    # of 4, 8, 16 and 32, and the FC layers.
    others = 4352 * 216 + 512 * 864 + 64 * 3456 + 8 * 13824 + 32 * 128 + 128 * 64 + 64 * 2
    adds = 2 * (32 * 35 * 33) * 54 + 3 * others
    assert case["gflop"] == pytest.approx(2e-9 * 2 * adds)
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


def test_wheels_of_what_is_there_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import accelerator

    for name in ("numpy-2.0-py3-none-any.whl", "not_there-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert [p.name for p in accelerator.missing_wheels(tmp_path)] == [
        "not_there-1.0-py3-none-any.whl"
    ]
