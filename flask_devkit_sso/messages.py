"""The texts on the pages: one catalogue in TOML for each language.

The package's catalogues are in ``templates/devkit_sso/messages``. An application's template loader
finds the application's own catalogues under the same names: ``fr.toml`` adds a language, and
``en.toml`` changes the English wording. A text that such a catalogue lacks comes from the package's
catalogue for that language or, without one, from the English catalogue.
"""

from __future__ import annotations

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from flask import Flask
from jinja2 import TemplateNotFound
from markupsafe import Markup, escape

log: Final = logging.getLogger("flask_devkit_sso")

_FOLDER: Final = "devkit_sso/messages"
_PACKAGE_FOLDER: Final = Path(__file__).parent / "templates" / _FOLDER

_MAX_TAG_LENGTH: Final = 35
"""The longest language tag that is looked up, in characters (RFC 5646 section 4.4.1).

Looking up a tag takes time quadratic in its length, and anyone can send a long one.
"""


@dataclass(frozen=True)
class Catalogue:
    """The texts in one language, by dotted names such as ``logout.title``."""

    language: str
    texts: Mapping[str, str]

    def markup(self, name: str, **values: object) -> Markup:
        """Return a text for a page, with ``{placeholders}`` replaced by ``values``.

        Escape the text and the values, except values that are :class:`~markupsafe.Markup`. Leave
        unknown names and placeholders as they are, because a mistake in an application's catalogue
        must not break its error pages.
        """
        text = str(escape(self.texts.get(name, name)))
        filled = re.sub(r"\{(\w+)\}", lambda m: str(escape(values.get(m[1], m[0]))), text)
        return Markup(filled)  # noqa: S704


class Catalogues:
    """The catalogues of one application.

    They are read once, or for each page if the application reloads its templates.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Catalogue] | None = None

    def choose(self, app: Flask, accepted: Iterable[tuple[str, float]]) -> Catalogue:
        """Return the catalogue that fits a request best, or the English one if none does.

        :param accepted: language ranges with their weights, the most preferred first.
        """
        catalogues = self._loaded
        if catalogues is None or app.jinja_env.auto_reload:
            catalogues = self._loaded = _load(app)
        for language, quality in accepted:
            if quality <= 0 or len(language) > _MAX_TAG_LENGTH:
                continue
            # RFC 4647 section 3.4: try zh-Hant-TW, then zh-Hant, then zh.
            parts = language.lower().split("-")
            while parts:
                if catalogue := catalogues.get("-".join(parts)):
                    return catalogue
                parts.pop()
        return catalogues["en"]


def _load(app: Flask) -> dict[str, Catalogue]:
    """Return the application's catalogues, by language tag in lower case."""
    package = {
        path.stem: _parse(path.read_text("utf-8")) for path in _PACKAGE_FOLDER.glob("*.toml")
    }
    own = {language: _read_own(app, language) for language in {*_list_own(app), *package}}
    english = package["en"] | own["en"]
    return {
        language.lower(): Catalogue(language, english | package.get(language, {}) | texts)
        for language, texts in own.items()
        if texts or language in package
    }


def _list_own(app: Flask) -> set[str]:
    """Return the languages for which the application's loader lists a catalogue."""
    try:
        names = app.jinja_env.list_templates()
    except TypeError:
        # Some loaders, such as FunctionLoader, cannot list their templates. They can still
        # replace the package's catalogues, which are loaded by name.
        return set()
    matches = (re.fullmatch(_FOLDER + r"/([\w-]+)\.toml", name) for name in names)
    return {match[1] for match in matches if match}


def _read_own(app: Flask, language: str) -> dict[str, str]:
    """Read the catalogue that the application's loader finds, which may be the package's.

    Return no texts if there is none. If it cannot be read, log that and return no texts.
    """
    name, loader = f"{_FOLDER}/{language}.toml", app.jinja_env.loader
    try:
        return _parse(loader.get_source(app.jinja_env, name)[0]) if loader else {}
    except TemplateNotFound:
        return {}
    except (OSError, ValueError) as error:
        log.error("the application's templates/%s is ignored: %s", name, error)
        return {}


@lru_cache(maxsize=16)
def _parse(source: str) -> dict[str, str]:
    """Return a catalogue's texts. Do not change the result: it is parsed once in each process, for
    all applications and all reloads of the templates."""
    return _flatten(tomllib.loads(source))


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            texts |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            texts[prefix + key] = value
        else:
            raise ValueError(f"{prefix}{key} is not a string")
    return texts
