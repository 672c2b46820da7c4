"""Sphinx configuration: `make docs` builds these pages with warnings as errors."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

from melanoma_dist import __version__  # noqa: E402  # the checkout's, not an installed one's

project = "melanoma-dist"
author = "The melanoma-dist authors"
copyright = author  # the name that Sphinx reads
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "configuration_fields"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_class_signature = "separated"  # objects come from functions: their constructors are not for users
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_title = f"melanoma-dist {release}"

# Files of the repository that are pages here too. Pages link to the files, so that links work on a code host as well.
PAGES_OF_FILES = {
    "../SECURITY.md": "security.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
    "../benchmarks/RESULTS.md": "results.md",
    "../cluster/README.md": "cluster-recipes.md",
    "../tests/chaos/README.md": "faults.md",
}


def link_to_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links to files of the repository lead to their pages."""
    for file, page in PAGES_OF_FILES.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_pages)
