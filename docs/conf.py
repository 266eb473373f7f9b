"""Sphinx configuration of the documentation site; ``make docs`` builds it."""

from importlib.metadata import version as installed_version

project = "edgesim"
copyright = "the edgesim authors"
release = installed_version("edgesim")
version = release

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"edgesim {release}"
html_show_sphinx = False

myst_heading_anchors = 3
