from importlib.metadata import version as installed_version

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
