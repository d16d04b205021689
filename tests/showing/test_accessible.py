"""Axe finds no accessibility error on the pages.

Needs Chromium and the file ``axe.min.js`` of the npm package axe-core, named by ``$AXE``.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import synthetic_run

from mri_jax.reporting.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
AXE = os.environ.get("AXE", "")
PROBE = """<script>{axe}</script><script>
window.addEventListener("load", async () => {{
  for (const details of document.querySelectorAll("details")) details.open = true;
  const found = await axe.run();
  const told = found.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 200))]);
  document.body.dataset.axe = JSON.stringify([found.passes.length, told]);
}});
</script></body>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or not AXE, reason="needs Chromium and axe-core ($AXE)"),
]


def judged(page: Path, folder: Path, width: int) -> tuple[int, list]:
    """How many rules a page passes, and the rules that it breaks with the elements."""
    axe = Path(AXE).read_text("utf-8").replace("</script", "<\\/script")
    policy = r"<meta http-equiv=.Content-Security-Policy[^>]*>"  # it forbids scripts on some pages
    text = re.sub(policy, "", page.read_text("utf-8"))
    text = text.replace("</body>", PROBE.format(axe=axe))
    probed = folder / "probed.html"
    probed.write_text(text, encoding="utf-8")
    quiet = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    done = subprocess.run(
        [CHROMIUM, *quiet.split(), f"--user-data-dir={folder / 'chromium'}",
         f"--window-size={width},1200", "--virtual-time-budget=60000", "--dump-dom",
         probed.as_uri()],
        capture_output=True, timeout=300, check=True, encoding="utf-8",
    )  # fmt: skip
    found = re.search(r'data-axe="([^"]*)"', done.stdout)
    assert found, done.stderr[-500:]
    passed, broken = json.loads(html.unescape(found[1]))
    return passed, broken


@pytest.mark.parametrize("width", [1400, 400])
def test_axe_finds_no_error_in_a_report(tmp_path, width):
    folder = synthetic_run.write_run(tmp_path / "run", stages=("tuned-high",), arrays=True)
    passed, broken = judged(write_report([str(folder)]).page, tmp_path, width)
    assert passed > 20
    assert broken == []
