from dataclasses import fields
from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

from flask_devkit_sso.config.credentials import KEYS
from flask_devkit_sso.config.settings import PREFIX, Settings

project = "Flask-DevKit-SSO"
author = "Flask-DevKit-SSO contributors"
copyright = "2026, Flask-DevKit-SSO contributors"
release = version = installed_version("flask-devkit-sso")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
myst_heading_anchors = 2

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
nitpicky = True
# Names of other projects, and type variables, are not documented here.
nitpick_ignore_regex = [("py:.*", r"(?!flask_devkit_sso\.).*"), ("py:.*", r".*\.F")]


def insert_settings(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the table of settings in its place on their page: from the code, so that it is right."""
    if docname != "settings":
        return
    rows = ["| key | default | |", "|---|---|---|"]
    for item in fields(Settings):
        default = "credentials file" if item.name in KEYS else f"`{item.default!r}`"
        if isinstance(item.default, float):
            default = f"{item.default:g}"
        rows.append(f"| `{PREFIX}{item.name.upper()}` | {default} | {item.metadata['doc']} |")
    before, after = source[0].split("{{ settings }}")
    source[0] = before + "\n".join(rows) + after


def setup(app: Sphinx) -> None:
    app.connect("source-read", insert_settings)
