"""The pages' snippets run as they stand, one after another."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("page", ["env.md", "algorithm.md"])
def test_the_snippets_of_a_page_run(page):
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert snippets
    exec(compile("\n".join(snippets), str(DOCS / page), "exec"), {"__name__": page.removesuffix(".md")})
