"""Our stylesheet and scripts, which do not depend on how the application serves its own files.

Browsers ask for a new version each time: a script of an earlier version would not work together
with the pages of this one, and ``SEND_FILE_MAX_AGE_DEFAULT`` may be a year.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask import Response, abort, request

from .responses import keep

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
"""The system may have other types for these, which browsers do not accept."""

FILES: Final = {
    path.name: path.read_bytes()
    for path in (Path(__file__).parent.parent / "static").iterdir()
    if path.suffix in _TYPES
}
"""The contents of the files, by their names."""


def static(filename: str) -> Response:
    """Return one of our files."""
    if filename not in FILES:
        abort(404)
    return file_response(FILES[filename], _TYPES[Path(filename).suffix])


def script_response(content: str) -> Response:
    """Return a response with a script."""
    return file_response(content.encode(), _TYPES[".js"])


def file_response(content: bytes, content_type: str) -> Response:
    """Return a response that browsers keep, and ask about each time."""
    response = Response(content, content_type=content_type)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    response.make_conditional(request)
    return keep(response)
