"""The notebook runs from top to bottom against a real, tiny run, and is committed bare."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "checkpoint_analysis.ipynb"


def test_the_notebook_is_committed_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert len(code) >= 8
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_notebook_runs_against_a_run(tmp_path, monkeypatch):
    run = tmp_path / "runs" / "tiny"
    small = {
        "simulation.subjects_per_class": 6,
        "train.min_epochs": 1,
        "train.max_epochs": 1,
        "train.folds": 2,
        "finetune.epochs": 1,
        "finetune.inner_folds": 0,  # a part of so few has one subject of a class
    }
    given = os.environ.get("MRI_JAX_RUN")
    if not given:
        done = subprocess.run(
            [
                sys.executable,
                "launch.py",
                "--config=configs/finetune_high.py:smoke",
                f"--workdir={run}",
                "--noreport",
                *(f"--config.{name}={value}" for name, value in small.items()),
            ],
            cwd=ROOT,
            capture_output=True,
            timeout=900,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr[-2000:]
        monkeypatch.setenv("MRI_JAX_RUN", str(run))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    texts = [
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    everything = "\n".join(texts)
    assert "FiveMetrics(auc=" in everything
    assert "CNNSpec(" in everything
    (frozen,) = [line for line in everything.splitlines() if line.startswith("tuned-high: weights")]
    named = frozen.removeprefix("tuned-high: weights of ").removesuffix(" are exactly the source's")
    assert set(named.split(", ")) == {f"{kind}{k}" for kind in ("conv", "bn") for k in range(1, 5)}
