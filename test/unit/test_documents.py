"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
TESTS = sorted((ROOT / "test").rglob("test_*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_test_that_robustness_names_exists() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]*?)(test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 30
    for folder, name, function in named:
        found = [path for path in TESTS if str(path).endswith(f"{folder}{name}")]
        assert found, f"{folder}{name}"
        assert any(f"def {function}" in path.read_text(encoding="utf-8") for path in found)
