"""The docs site is complete, names files that exist, and loads nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "examples/README.md"])
FOLDERS = sorted(folder.name for base in (ROOT, ROOT / "fraud_service") for folder in base.glob("[a-z]*/"))
FILE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`")
LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_of_the_site_loads_anything_from_another_host(site: Path) -> None:
    pages = [*site.glob("**/*.html")]
    assert len(pages) > len(PAGES) / 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert LOADED.findall(text) == [], page.name
        assert 'data-md-component="source"' not in text, "the theme asks api.github.com for the facts of a repository"
        assert "mermaid" not in text, "the theme loads mermaid from another host"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page: Path) -> None:
    if page.parent.name == "adr" and page.name != "index.md":
        return  # a decision record describes the service at the time of the decision
    named = FILE.findall(page.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "fraud_service")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []
