"""The texts that people see: catalogues in TOML, one a language.

Ours are in ``templates/devkit_sso/messages``. An application's are found by its own template
loader under the same names, so it extends ours as it overrides our pages: ``fr.toml`` adds a
language, ``en.toml`` changes our wording. A text that a catalogue lacks is ours of that language,
else the English one.
"""

from __future__ import annotations

import difflib
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flask import Flask
from jinja2 import TemplateNotFound
from markupsafe import Markup, escape

log: Final = logging.getLogger("flask_devkit_sso")

_FOLDER: Final = "devkit_sso/messages"
_OURS: Final = Path(__file__).parent / "templates" / _FOLDER

_NEAR: Final = 0.7
"""How alike two names are, of 1, that one is taken for a slip."""

_MAX_TAG: Final = 35
"""Characters of a language tag (RFC 5646 section 4.4.1). One of many parts costs the square of its
length, and anybody may send it."""


@dataclass(frozen=True)
class Catalogue:
    """The texts in one language; their names are the TOML file's, as ``logout.title``."""

    language: str
    texts: Mapping[str, str]

    def markup(self, name: str, **values: object) -> Markup:
        """Return a text for a page, with ``{placeholders}`` filled in.

        Text and values are escaped, but for values that are markup. What is not known stays as it
        is: a slip in an application's catalogue must not break its error pages.
        """
        text = str(escape(self.texts.get(name, name)))
        filled = re.sub(r"\{(\w+)\}", lambda m: str(escape(values.get(m[1], m[0]))), text)
        return Markup(filled)  # noqa: S704


class Catalogues:
    """The catalogues of one application; read once, or each time where templates are too."""

    def __init__(self) -> None:
        self._read: dict[str, Catalogue] | None = None
        self._told: set[str] = set()

    def choose(self, app: Flask, accepted: Iterable[tuple[str, float]]) -> Catalogue:
        """Return the catalogue that a reader likes best; English, where there is none.

        :param accepted: language ranges with their weights, the best first.
        """
        found = self._read
        if found is None or app.jinja_env.auto_reload:
            found = self._read = self._read_all(app)
        for language, quality in accepted:
            if quality <= 0 or len(language) > _MAX_TAG:
                continue
            # RFC 4647 section 3.4: zh-Hant-TW, then zh-Hant, then zh.
            parts = language.lower().split("-")
            while parts:
                if catalogue := found.get("-".join(parts)):
                    return catalogue
                parts.pop()
        return found["en"]

    def _read_all(self, app: Flask) -> dict[str, Catalogue]:
        try:
            names = app.jinja_env.list_templates()
        except TypeError:
            # Such a loader cannot tell what it has; asked for a name, it can.
            names = []
        ours = {path.stem: _parse(path.read_text("utf-8")) for path in _OURS.glob("*.toml")}
        found = {m[1] for name in names if (m := re.fullmatch(_FOLDER + r"/([\w-]+)\.toml", name))}
        theirs = {language: _read_theirs(app, language) for language in {*found, *ours}}
        for language, texts in theirs.items():
            self._tell_slips(language, texts, ours["en"])
        english = ours["en"] | theirs["en"]
        return {
            language.lower(): Catalogue(language, english | ours.get(language, {}) | texts)
            for language, texts in theirs.items()
            if texts or language in ours
        }

    def _tell_slips(self, language: str, texts: Iterable[str], known: Mapping[str, str]) -> None:
        """Log, once, each name that is nearly one of ours: an application may well have others,
        for templates of its own."""
        place = f"templates/{_FOLDER}/{language}.toml"
        for name in texts:
            slip = f"{place}: {name}"
            near = [] if name in known else difflib.get_close_matches(name, known, 1, _NEAR)
            if near and slip not in self._told:
                self._told.add(slip)
                log.warning("the application's %s is no text: did you mean %s?", slip, near[0])


def _read_theirs(app: Flask, language: str) -> dict[str, str]:
    """Read what the application's loader finds, which may be ours; nothing, where it is broken."""
    name, loader = f"{_FOLDER}/{language}.toml", app.jinja_env.loader
    try:
        return _parse(loader.get_source(app.jinja_env, name)[0]) if loader else {}
    except TemplateNotFound:
        return {}
    except (OSError, ValueError) as error:
        log.error("the application's templates/%s is left out: %s", name, error)
        return {}


def _parse(source: str) -> dict[str, str]:
    return _flatten(tomllib.loads(source))


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            texts |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            texts[prefix + key] = value
        else:
            raise ValueError(f"{prefix}{key} is not a text")
    return texts
