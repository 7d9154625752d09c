"""The pages' snippets run as they stand, one after another."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize(
    "page",
    [
        "env.md",
        "algorithm.md",
        "algorithms/bc.md",
        "algorithms/blades.md",
        "algorithms/iq.md",
        "algorithms/maairl.md",
        "algorithms/magail.md",
        "algorithms/maxent.md",
        "algorithms/ppo.md",
        "algorithms/dagger.md",
        "algorithms/gmmil.md",
        "algorithms/pwil.md",
        "few-and-noisy.md",
        "regret.md",
        "speed.md",
        "formats.md",
        "scenes/index.md",
        "scenes/data.md",
        "scenes/football.md",
        "scenes/pedestrians.md",
        "scenes/baselines.md",
        "envs/boids.md",
    ],
)
def test_the_snippets_of_a_page_run(page, tmp_path, monkeypatch):
    if page == "formats.md":
        for package in ("h5py", "mpe2", "pandas"):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert snippets
    exec(compile("\n".join(snippets), str(DOCS / page), "exec"), {"__name__": page.removesuffix(".md")})
