"""Renders templates: ours in an environment of our own, the application's in the application's.

An application may have another syntax for its templates, other options, or context processors that
fail. None of that reaches our pages. A template of the application that has the name of one of
ours replaces it, and is rendered as its other templates are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from flask import render_template
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup, escape

from ..service import get_app
from .place import url_for

log: Final = logging.getLogger("flask_devkit_sso")

_FOLDER: Final = Path(__file__).parent.parent / "templates"

_NOT_REPLACEABLE: Final = ("landing.html", "leaving.html")
"""Templates of pages whose address may contain a code, which scripts of a layout could read."""

_FRAME: Final = (
    *("language", "sso_text", "content_policy", "referrer_policy"),
    *("app_name", "logo_url", "start_url"),
)
"""The values that all pages have, and all that ``base.html`` uses."""

_BLOCKS: Final = ("attributes", "script", "title", "main")
"""The blocks of ``base.html``."""

_FILLED_BASE: Final = "{% extends 'devkit_sso/base.html' %}" + "".join(
    f"{{% block {name} %}}{{{{ sso_blocks.{name} }}}}{{% endblock %}}" for name in _BLOCKS
)
"""A page whose frame is the application's ``base.html``, and whose content is ready markup."""

_environment: Final = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, auto_reload=False, undefined=StrictUndefined
)
_environment.globals["url_for"] = url_for


class PackageLoader(FileSystemLoader):
    """Loads our templates for the application's environment, in the syntax that it has."""

    def __init__(self) -> None:
        super().__init__(_FOLDER)

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        source, filename, is_current = super().get_source(environment, template)
        if filename.endswith(".html"):
            source = _in_syntax_of(environment, source)
        return source, filename, is_current


def render(template: str, values: dict[str, Any]) -> str:
    """Return one of our pages, or the application's page that replaces it.

    If the application's page cannot be rendered, log that and return ours.
    """
    name = f"devkit_sso/{template}"
    if template not in _NOT_REPLACEABLE:
        try:
            if _is_replaced(name):
                return render_template(name, **_escaped(name, values))
            if _is_replaced("devkit_sso/base.html"):
                return _render_in_base(name, values)
        except Exception:
            log.exception("the application's template for %s is ignored, because it failed", name)
    return _environment.get_template(name).render(values)


def _is_replaced(name: str) -> bool:
    """Return whether the application has a template with the name of one of ours."""
    environment = get_app().jinja_env
    if environment.loader is None:
        return False
    try:
        filename = environment.loader.get_source(environment, name)[1]
    except TemplateNotFound:
        return False
    return filename is None or _FOLDER.resolve() not in Path(filename).resolve().parents


def _render_in_base(name: str, values: dict[str, Any]) -> str:
    template = _environment.get_template(name)
    context = template.new_context(values)
    # This sets the variables that the blocks use.
    "".join(template.root_render_func(context))
    blocks = {block: Markup("".join(context.blocks[block][0](context))) for block in _BLOCKS}  # noqa: S704
    environment = get_app().jinja_env
    page = environment.from_string(_in_syntax_of(environment, _FILLED_BASE))
    shown = {key: value for key, value in values.items() if key in _FRAME}
    return render_template(page, sso_blocks=blocks, **_escaped(name, shown))


def _escaped(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return values for a template of the application, escaped if its environment does not."""
    autoescape = get_app().jinja_env.autoescape
    if autoescape(name) if callable(autoescape) else autoescape:
        return values
    return {
        key: escape(value) if isinstance(value, str) else value for key, value in values.items()
    }


def _in_syntax_of(environment: Environment, source: str) -> str:
    """Return a template of ours with the delimiters of another environment."""
    delimiters = {}
    for part in ("block", "variable", "comment"):
        for end in ("start", "end"):
            option = f"{part}_{end}_string"
            kind = f"{part}_{'begin' if end == 'start' else 'end'}"
            delimiters[kind] = getattr(_environment, option), getattr(environment, option)
    return "".join(
        text.replace(*delimiters[kind]) if kind in delimiters else text
        for _, kind, text in _environment.lex(source)
    )
