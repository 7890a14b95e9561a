"""MkDocs hook: pages outside `docs/` join the site, and links work both on GitHub and on the site.

On GitHub a page links to any file of the repository by relative path. The site has only some of these files as pages.
So each relative link becomes a link to the page, if the site has one, and else a link to the file on GitHub. A link to
a file that does not exist stays as it is, and `mkdocs build --strict` fails on it.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
OUTSIDE: Final = {  # page of the site: file of the repository
    "first-run.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "examples.md": "examples/README.md",
    "chart.md": "helm/fraud-service/README.md",
    "model.md": "models/pretrained/README.md",
}
PAGES: Final = {source: page for page, source in OUTSIDE.items()}
LINK: Final = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are kept outside `docs/`."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point each relative link to a page of the site, or to the file on GitHub."""
    here = page.file.src_uri
    source = OUTSIDE.get(here, f"docs/{here}")

    def site_link(match: re.Match[str]) -> str:
        target = os.path.normpath(Path(source).parent / match[1])
        return f"]({_address(target, here, files, config.extra['repository']) or match[1]}{match[2] or ''})"

    return LINK.sub(site_link, markdown)


def _address(target: str, here: str, files: Files, repository: str) -> str | None:
    """Return the address of a file of the repository as seen from a page, None where there is no such file."""
    page = PAGES.get(target, target.removeprefix("docs/"))
    if (target in PAGES or target.startswith("docs/")) and files.get_file_from_path(page):
        return os.path.relpath(page, Path(here).parent)
    if (ROOT / target).exists():
        return f"{repository}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
    return None
