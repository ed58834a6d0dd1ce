"""Sphinx configuration."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "sst-editing"
author = "The SST-editing authors"
copyright = f"2026, {author}"
version = release = installed_version("sst-editing")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "scanpydoc.elegant_typehints",
    "scanpydoc.definition_list_typed_field",
]
autosummary_generate = True
autosummary_imported_members = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = True
napoleon_custom_sections = [("Params", "Parameters")]
typehints_defaults = "braces"
always_use_bars_union = True
nb_execution_mode = "off"  # the notebooks are committed executed
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "scanpydoc"
html_title = project
html_theme_options = {"use_repository_button": False}
suppress_warnings = [
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
    "myst.header",
]
