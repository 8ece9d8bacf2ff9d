"""Finds views whose guard has no effect, before the application serves requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from ..config.problem import Problem
from ..config.settings import PREFIX
from ..errors import ConfigError
from ..service import AppState
from .guard import guarded_functions, guards
from .place import urls_at

_ORDER: Final = (
    "Write @login_required and @role_required directly below @app.get or @app.route, above all "
    "other decorators"
)

_CACHES: Final = (
    ("make_cache_key", "uncached"),  # Flask-Caching
    ("cache_parameters",),  # async_lru
    ("cache_key", "cache_lock"),  # cachetools before 7
    ("__cache_key__",),  # diskcache
    ("invalidate", "refresh"),  # dogpile.cache
)
"""Attributes that show that a function is another one with a cache."""


def find_view_problems(app: Flask, state: AppState) -> list[Problem]:
    """Return what is wrong with guarded views.

    A guard above ``@app.get`` has no effect, because Flask registers the bare function. A cache
    above a guard shows one person's page to everybody. And nobody can sign in at another host than
    the redirect URI's.
    """
    bare, cached, elsewhere = [], [], []
    matches = _host_matcher(app, state)
    for endpoint, view in app.view_functions.items():
        functions = [_layers(function) for function in _functions_of(view)]
        name = f"{_name(view)} (endpoint {endpoint})"
        if any(_is_in(layer, guarded_functions) for layer in _unwrap_partials(view)):
            bare.append(name)
        if any(map(_has_cache_above_guard, functions)):
            cached.append(name)
        if any(_innermost_guard(layers) >= 0 for layers in functions) and not any(
            map(matches, app.url_map.iter_rules(endpoint))
        ):
            elsewhere.append(name)
    found = []
    if bare:
        text = f"These views are registered without their guard: {', '.join(bare)}"
        found.append(Problem(f"{text}. {_ORDER}"))
    if cached:
        text = (
            "These views have a cache above their guard, so one person's page would be shown to "
            f"others: {', '.join(cached)}"
        )
        found.append(Problem(f"{text}. {_ORDER}"))
    if elsewhere:
        text = (
            "These guarded views are at other hosts than the redirect URI, where nobody can be "
            f"signed in: {', '.join(elsewhere)}"
        )
        fix = (
            "Serve them at the redirect URI's host, or create an application with its own "
            f"{PREFIX}REDIRECT_URI for each host"
        )
        found.append(Problem(text, fix))
    return found


def _functions_of(view: Any) -> Iterable[Any]:
    """Yield the view and, if it is a class, its methods."""
    yield view
    of_class = getattr(view, "view_class", None)
    for method in ("dispatch_request", *(getattr(of_class, "methods", None) or ())):
        yield getattr(of_class, method.lower(), None)


def _layers(function: Any) -> list[Any]:
    """Return a function, followed by those that its decorators received, down to its own code."""
    found: list[Any] = []
    while function is not None and not any(function is known for known in found):
        found.append(function)
        is_partial = isinstance(function, partial)
        function = function.func if is_partial else getattr(function, "__wrapped__", None)
    return found


def _unwrap_partials(view: Any) -> Iterable[Any]:
    yield view
    while isinstance(view, partial):
        view = view.func
        yield view


def _innermost_guard(layers: list[Any]) -> int:
    """Return the guard's position, or -1."""
    return max((i for i, layer in enumerate(layers) if _is_in(layer, guards)), default=-1)


def _is_in(layer: Any, functions: WeakSet[Callable[..., Any]]) -> bool:
    try:
        return layer in functions
    except TypeError:
        # It has no hash, so it is no function.
        return False


def _has_cache_above_guard(layers: list[Any]) -> bool:
    position = _innermost_guard(layers)
    return any(_is_cache(layer, layers[position]) for layer in layers[: max(position, 0)])


def _is_cache(layer: Any, guard: Any) -> bool:
    """Return whether a layer above a guard is a cache."""
    if type(layer).__module__.partition(".")[0] in ("functools", "cachetools"):
        return not isinstance(layer, partial)
    # functools.wraps copies the attributes of a cache below the guard to all layers above.
    return any(
        all(hasattr(layer, name) for name in names)
        and any(getattr(layer, name) is not getattr(guard, name, None) for name in names)
        for names in _CACHES
    )


def _host_matcher(app: Flask, state: AppState) -> Any:
    """Return a function that says whether a rule serves the redirect URI's host."""
    urls, uri = app.url_map, state.redirect_uri
    if uri is None or not (urls.host_matching or app.subdomain_matching):
        return lambda rule: True
    try:
        there = urls_at(app, uri)
    except ConfigError:
        # find_route_problems reports it.
        return lambda rule: True

    def matches(rule: Rule) -> bool:
        place = Rule("/", endpoint="", host=rule.host, subdomain=rule.subdomain)
        alone = Map([place], host_matching=urls.host_matching, converters=urls.converters)
        try:
            alone.bind(there.server_name, subdomain=there.subdomain).match("/")
        except HTTPException:
            return False
        return True

    return matches


def _name(view: Any) -> str:
    *_, view = _unwrap_partials(view)
    return f"{view.__module__}.{getattr(view, '__qualname__', type(view).__name__)}"
