"""Finds the forms and links of an HTML page, as a browser without JavaScript does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

MAX_FIELDS: Final = 200
"""Maximum number of fields and buttons of a page."""

_PARSING_TIME: Final = 5.0
_PIECE: Final = 1024
# The time that html.parser needs can grow with the square of an incomplete tag's length. Between
# pieces there is time to notice that.

_NOT_SENT: Final = ("button", "file", "reset")
_BUTTONS: Final = ("image", "submit")


class Unreadable(Exception):
    """A page cannot be read. The text is ours, and continues one that begins with "authorize"."""


@dataclass
class Field:
    """A field or button of a form.

    :ivar kind: the ``type`` of an ``<input>`` or ``<button>``, ``select`` or ``textarea``.
    :ivar value: what is sent if nobody changes it.
    :ivar text: what a button shows.
    :ivar options: the values of a ``<select>``.
    """

    kind: str
    name: str
    value: str = field(default="", repr=False)
    is_checked: bool = False
    autocomplete: str = ""
    text: str = ""
    action: str | None = None
    method: str | None = None
    options: list[str] = field(default_factory=list, repr=False)

    @property
    def is_button(self) -> bool:
        return self.kind in _BUTTONS

    @property
    def is_text(self) -> bool:
        """Whether a person can type text that others may see."""
        choices = ("checkbox", "radio", "select", "hidden", "password")
        return self.kind not in (*_BUTTONS, *choices)


@dataclass
class Form:
    """A form. ``action`` and ``method`` are as in the page."""

    action: str = ""
    method: str = "get"
    encoding: str = ""
    fields: list[Field] = field(default_factory=list)


@dataclass
class Link:
    address: str = field(repr=False)
    text: str = ""


@dataclass
class Content:
    """What a person can use in a page. ``base`` is the address of ``<base>``, or ""."""

    base: str = ""
    forms: list[Form] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


def parse_page(text: str) -> Content:
    """Return the forms and links of a page.

    :raises Unreadable: if it has more than :data:`MAX_FIELDS` fields, or takes too long to read.
    """
    parser, until = _Parser(), time.monotonic() + _PARSING_TIME
    for start in range(0, len(text), _PIECE):
        parser.feed(text[start : start + _PIECE])
        if time.monotonic() > until:
            raise Unreadable("shows a page so malformed that it takes too long to read")
    return parser.found


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Content()
        self._by_id: dict[str, Form] = {}
        self._field_count = 0
        self._form: Form | None = None
        self._select: Field | None = None
        # What the text that follows belongs to.
        self._writing: Field | Link | None = None
        self._is_textarea = False
        self._template_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Of a repeated attribute, the first one counts.
        attributes = {name: value or "" for name, value in reversed(attrs)}
        if tag == "template":
            self._template_depth += 1
        if self._template_depth:
            return
        if tag == "base" and not self.found.base:
            self.found.base = attributes.get("href", "")
        elif tag == "form" and self._form is None:
            self._form = self._form_of_id(attributes.get("id", ""))
            self._form.action = attributes.get("action", "")
            self._form.method = attributes.get("method", "get").lower()
            self._form.encoding = attributes.get("enctype", "").lower()
        elif tag == "a" and "href" in attributes:
            self._writing = Link(attributes["href"])
            self.found.links.append(self._writing)
        elif tag in ("input", "button", "select", "textarea"):
            self._add_field(tag, attributes)
        elif tag == "option" and self._select is not None:
            self._add_option(self._select, attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag == "template":
            self._template_depth = max(0, self._template_depth - 1)
        elif tag == "form":
            self._form = None
        elif tag == "select":
            self._select = None
        if tag in ("a", "button", "textarea"):
            self._writing, self._is_textarea = None, False

    def handle_data(self, data: str) -> None:
        if isinstance(self._writing, Field) and self._is_textarea:
            self._writing.value += data
        elif self._writing is not None:
            self._writing.text += data

    def _form_of_id(self, name: str) -> Form:
        """Return the form with an id, or a new one."""
        form = self._by_id.get(name) if name else None
        if form is None:
            form = Form()
            self.found.forms.append(form)
            if name:
                self._by_id[name] = form
        return form

    def _add_field(self, tag: str, attributes: dict[str, str]) -> None:
        self._field_count += 1
        if self._field_count > MAX_FIELDS:
            raise Unreadable(f"shows a page with more than {MAX_FIELDS} fields")
        usual = {"input": "text", "button": "submit"}.get(tag, tag)
        kind = attributes.get("type", usual).lower() if tag in ("input", "button") else tag
        form = self._form_of_id(attributes["form"]) if attributes.get("form") else self._form
        if form is None or "disabled" in attributes or kind in _NOT_SENT:
            return
        usual_value = "on" if kind in ("checkbox", "radio") else ""
        new = Field(
            kind,
            attributes.get("name", ""),
            attributes.get("value", usual_value),
            is_checked="checked" in attributes,
            autocomplete=attributes.get("autocomplete", "").lower(),
            action=attributes.get("formaction"),
            method=attributes["formmethod"].lower() if "formmethod" in attributes else None,
        )
        form.fields.append(new)
        if tag in ("button", "textarea"):
            self._writing, self._is_textarea = new, tag == "textarea"
        if tag == "select":
            self._select = new

    def _add_option(self, select: Field, attributes: dict[str, str]) -> None:
        value = attributes.get("value", "")
        if not select.options or "selected" in attributes:
            select.value = value
        select.options.append(value)
