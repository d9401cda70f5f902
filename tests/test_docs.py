"""The documentation builds without a warning, is whole, and opens without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gptface

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0 and not built.stderr.strip(), built.stdout + built.stderr
    return folder


def test_nothing_of_a_page_comes_from_elsewhere(site):
    """Who reads it tells nobody, and a machine without a network shows all of it."""
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text())
        assert not [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)], page


def test_the_reference_has_all_public_names_and_commands(site):
    pages = [page.read_text() for page in (site / "reference").glob("*.html")]
    anchors = {anchor for page in pages for anchor in re.findall(r'id="([^"]+)"', page)}
    assert {f"gptface.{name}" for name in gptface.__all__} <= anchors
    assert {"gptface-edit", "gptface-evaluate-editing", "gptface-convert-original"} <= anchors


def test_formulas_and_references_of_docstrings_are_drawn(site):
    """Left as they are written, they would be noise."""
    architecture, models = (site / name for name in ("explanation/architecture.html", "reference/models.html"))
    assert architecture.read_text().count("<math ") >= 6 and "\\frac" not in architecture.read_text()
    assert "[<code>GPTFace" not in models.read_text() and "<code>`" not in models.read_text()


def test_documents_of_the_repository_are_pages_as_they_are(site):
    """One text, not a copy that grows old."""
    assert "You want to" in (site / "index.html").read_text()
    for name in ("model_card", "SECURITY", "CHANGELOG", "CONTRIBUTING"):
        assert (site / f"{name}.html").is_file()
    picture = Path("examples/edits/smiling.webp")
    assert (site / picture).read_bytes() == (ROOT / picture).read_bytes()
