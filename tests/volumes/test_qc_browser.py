"""The page of quality control in a real browser: sort, filter, mark, give a name, export."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from mri_jax.volumes import exclusions, qc_page, quality
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.store import StoreInfo, StoreWriter, VolumeStore

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

# What a rater does, step by step; what the page then shows is left in the document for the test.
RATER = """
<script>
window.addEventListener("load", async () => {
  const seconds = {}, clock = (name, act) => {
    const start = performance.now(); act(); document.body.offsetHeight;
    seconds[name] = (performance.now() - start) / 1000;
  };
  const found = { opened: performance.now() / 1000, seconds };
  const shown = () => [...document.querySelectorAll("article")];
  const subjects = () => shown().map((row) => row.scan.subject_id);
  const value = (name) => shown().map((row) => row.scan.figures[name]);
  const choose = (id, to) => { byId(id).value = to; byId(id).dispatchEvent(new Event("change")); };
  const type = (field, text) => {
    field.value = text;
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind));
  };
  const press = (row, key) => row.dispatchEvent(new KeyboardEvent("keydown", { key }));
  const alerts = []; window.alert = (text) => alerts.push(text);
  const files = [], make = URL.createObjectURL;
  URL.createObjectURL = (blob) => { files.push(blob); return make.call(URL, blob); };

  found.worst = subjects().slice(0, 2);
  clock("sort", () => choose("sort", "correlation"));
  found.correlation = value("correlation");
  byId("direction").click();
  found.reversed = value("correlation");
  byId("direction").click();
  choose("sort", "brain_ml");
  found.brain_ml = value("brain_ml");
  choose("sort", "subject_id");
  found.subjects = subjects();

  const rows = shown();
  byId("export").click();
  found.nameless = [alerts.length, files.length];
  type(byId("rater"), "Ö. Rater, MD");
  clock("mark", () => rows[1].querySelector(".e").click());
  type(rows[1].querySelector(".reason"), 'motion, "strong"');
  rows[2].querySelector(".k").click();
  press(rows[3], "e"); press(rows[3], "u");
  press(rows[4], "k");
  found.count = byId("count").textContent;
  found.classes = rows.slice(0, 5).map((row) => row.className);
  choose("show", "exclude"); found.excluded = subjects();
  choose("show", "open"); found.open = subjects().length;
  choose("show", "flagged"); found.flagged = subjects();
  choose("show", "all"); type(byId("find"), "S0007"); found.found = subjects();
  type(byId("find"), "");
  clock("export", () => byId("export").click());
  found.csv = await files[0].text();
  rows[0].scrollIntoView();
  await new Promise((done) => setTimeout(done, 300));
  found.picture = rows[0].querySelector("img").naturalWidth;
  found.saved = Object.keys(JSON.parse(localStorage.getItem(memory)).marks).length;
  document.body.dataset.found = JSON.stringify(found);
});
</script></body>"""


def shown_by(number: int, folder) -> VolumeStore:
    """A store of that many scans with figures drawn anew for each; its volumes are not needed."""
    info = StoreInfo(GRIDS["demo"], "float16", False, {"template": "mni152"}, {})
    draw = np.random.default_rng(3)
    rows = pd.DataFrame(
        {
            "subject_id": [f"S{i:04d}" for i in range(number)],
            "session_id": "ses-1",
            "cohort": "A",
            "volume": [f"volumes/{i}.npy" for i in range(number)],
            "mask": [f"masks/{i}.npy" for i in range(number)],
            "shape": "none",
            "spacing": "none",
            "sha256": "0" * 64,
            **{name: draw.normal(20, 1, number).round(3) for name in quality.FIGURES},
        }
    )
    rows["correlation"] = draw.uniform(0.7, 0.8, number).round(4)
    rows["mirrored_forms"] = rows["leakage"] = rows["missing"] = rows["form_gap_mm"] = 0
    rows["brain_ml"] = draw.uniform(1200, 1500, number).round(1)
    rows.loc[5, "correlation"] = 0.1
    rows["form_gap_mm"] = np.nan
    StoreWriter(folder, info).write_index(rows)
    return VolumeStore(folder)


def picture(template, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    volume = draw.integers(1, 99, GRIDS["demo"].shape).astype(np.float32)
    row = qc_page.row_of_slices(volume, GRIDS["demo"], volume > 200)
    buffer = io.BytesIO()
    Pillow.fromarray(row).save(buffer, "WEBP", quality=20)
    return base64.b64encode(buffer.getvalue()).decode()


def rated(store: VolumeStore, image: str, tmp_path) -> dict:
    """What a browser shows when a rater works through the page."""
    text = qc_page.page(store, [image] * len(store))
    path = tmp_path / "probe.html"
    path.write_text(text.replace("</body>", RATER), encoding="utf-8")
    quiet = "--no-sandbox --disable-gpu --disable-quic --no-first-run --enable-logging=stderr"
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            *quiet.split(),
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--timeout=60000",
            "--virtual-time-budget=20000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        timeout=170,
        check=True,
        encoding="utf-8",
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    left = re.search(r'data-found="([^"]*)"', done.stdout)
    assert left, done.stdout[-500:]
    return json.loads(html.unescape(left[1]))


@pytest.mark.parametrize("number", [22, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_rater_sorts_marks_and_exports(number, template, tmp_path):
    store = shown_by(number, tmp_path / "store")
    found = rated(store, picture(template), tmp_path)
    index = store.index
    assert found["worst"][0] == "S0005"
    assert found["correlation"] == sorted(found["correlation"])
    assert found["reversed"] == found["correlation"][::-1]
    assert len(found["correlation"]) == number
    # The page shows four digits, so that two scans may seem to stand the other way by 1 mL.
    far = np.abs(np.array(found["brain_ml"]) - pd.to_numeric(index["brain_ml"]).median())
    assert (np.diff(far) < 1.1).all()
    assert far[0] > far[-1] + 50
    assert found["subjects"] == sorted(index["subject_id"])
    assert found["nameless"] == [1, 0]
    assert found["count"] == f"2 kept, 1 excluded, {number - 3} open"
    assert found["classes"] == ["", "exclude", "keep", "", "keep"]
    assert found["excluded"] == ["S0001"]
    assert found["open"] == number - 3
    assert "S0005" in found["flagged"]
    assert found["found"] == ["S0007"]
    assert found["picture"] > 500
    assert found["saved"] >= 3
    decisions = pd.read_csv(io.StringIO(found["csv"]), dtype=str, keep_default_na=False)
    assert decisions["subject_id"].tolist() == ["S0001", "S0002", "S0004"]
    assert decisions["reason"].tolist() == ['motion, "strong"', "", ""]
    assert decisions["rater"].unique().tolist() == ["Ö. Rater, MD"]
    excluded = exclusions.decided(index, decisions, [])
    assert excluded[["subject_id", "rater"]].values.tolist() == [["S0001", "Ö. Rater, MD"]]
    assert max(found["seconds"].values()) < 3
