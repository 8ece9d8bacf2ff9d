"""What one core, one SQLite file and one Redis can carry, computed from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .report import Table
from .scale import LOGIN, READ, TOUCH

PAGES: Final = 6
"""Guarded pages that a person loads in a minute."""


def compute(figures: Mapping[str, float]) -> Table | None:
    """Return the table, or None if something that it needs was not measured."""
    try:
        return _compute(figures)
    except KeyError:
        return None


def _compute(figures: Mapping[str, float]) -> Table:
    stores = "SQLite", "Redis"
    guarded = {name: figures[f"guarded: Flask-DevKit-SSO on {name}"] for name in stores}
    login = {name: figures[f"login: Flask-DevKit-SSO on {name}"] for name in stores}
    writes, touch = figures[f"SQLite: {LOGIN}"], figures[f"SQLite: {TOUCH}"]
    redis = {operation: figures[f"Redis: {operation}, CPU"] for operation in (READ, TOUCH, LOGIN)}
    return Table(
        "capacity",
        "Capacity",
        ["", *stores],
        [
            ["guarded requests per second, one core", *(_many(1 / guarded[n]) for n in stores)],
            ["logins per second, one core", *(_many(1 / login[name]) for name in stores)],
            [
                f"people with {PAGES} pages a minute, one core",
                *(_many(60 / (PAGES * guarded[name])) for name in stores),
            ],
            ["logins per second, one store", _many(1 / writes), _many(1 / redis[LOGIN])],
            ["reads per second, one store", "grows with the cores", _many(1 / redis[READ])],
            [
                f"people with {PAGES} pages a minute, one store",
                _many(60 / touch),
                _many(60 / (PAGES * redis[READ] + redis[TOUCH])),
            ],
            [
                "cores of guarded requests that one store serves",
                "all of the host",
                _many(guarded["Redis"] / redis[READ]),
            ],
            [
                "sessions in 1 GB of disk or memory",
                *(_many(1e9 / figures[f"{name}: bytes"]) for name in stores),
            ],
        ],
    )


def _many(number: float) -> str:
    """Return a number with two digits that count: more would promise too much."""
    return f"{float(f'{number:.2g}'):,.0f}"
