from importlib.metadata import version as installed_version

from pygments.lexers import TextLexer
from sphinx.application import Sphinx

project = "Flask-DevKit-SSO"
author = "Flask-DevKit-SSO contributors"
copyright = "2026, Flask-DevKit-SSO contributors"
release = version = installed_version("flask-devkit-sso")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
myst_heading_anchors = 4


def setup(app: Sphinx) -> None:
    # Pygments does not know the language of HAProxy's configuration.
    app.add_lexer("haproxy", TextLexer)
