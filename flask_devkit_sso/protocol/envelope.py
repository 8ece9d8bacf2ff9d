"""Parses JSON strictly: envelopes (docs/protocol.md, "Common to all") and what the landing page's
script posts."""

from __future__ import annotations

import codecs
import json
from typing import Any, Final

NOT_AN_ENVELOPE: Final = "is not an envelope"


class NotAnEnvelope(ValueError):
    """A body is not an envelope. The text continues a sentence that begins with "The response"."""


def parse_envelope(body: bytes) -> dict[str, Any]:
    """Parse a body as a JSON object in UTF-8 (RFC 8259), and return it with all its fields.

    One byte order mark is skipped (RFC 8259 section 8.1). Parsers differ in how they read a name
    that occurs twice (section 4), NaN and Infinity (section 6), so these are refused.

    :raises NotAnEnvelope: if the body is anything else.
    """
    if b"\0" in body:
        # All JSON in UTF-16 or UTF-32 contains such bytes, and no JSON in UTF-8 does.
        raise NotAnEnvelope("is not UTF-8")
    envelope = None
    try:
        envelope = _DECODER.decode(body.removeprefix(codecs.BOM_UTF8).decode())
    except NotAnEnvelope:
        raise
    except (ValueError, RecursionError):
        # A number with thousands of digits is a ValueError too. Do not raise anything here: this
        # exception contains the body, and would be the context of another one.
        pass
    if not isinstance(envelope, dict):
        raise NotAnEnvelope(NOT_AN_ENVELOPE)
    return envelope


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotAnEnvelope("contains a name twice")
    return found


def _refuse_constant(name: str) -> None:
    raise NotAnEnvelope(f"contains {name}, which is not JSON")


# json.loads would create one for each body.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique_names, parse_constant=_refuse_constant)
