"""Inputs that are almost right: samples with a few changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Mutation:
    """A sample, and changes to it: where, how many bytes to remove there, and what to insert.

    Words such as ``<STATE>`` stand for values that differ from run to run.
    """

    sample: bytes
    changes: tuple[tuple[int, int, bytes], ...] = ()

    def apply(self, **words: str) -> bytes:
        """Return the changed sample, with its words replaced."""
        data = _fill(self.sample, words)
        for at, removed, inserted in self.changes:
            start = at % (len(data) + 1)
            data = data[:start] + _fill(inserted, words) + data[start + removed :]
        return data


class Repeated(bytes):
    """Bytes that occur many times, with a short repr."""

    def __new__(cls, piece: bytes, times: int, before: bytes = b"", after: bytes = b"") -> Repeated:
        return super().__new__(cls, before + piece * times + after)

    def __init__(self, *arguments: bytes | int) -> None:
        self._arguments = arguments

    def __repr__(self) -> str:
        return f"Repeated({', '.join(map(repr, self._arguments))})"


def _fill(text: bytes, words: dict[str, str]) -> bytes:
    for name, value in words.items():
        text = text.replace(f"<{name}>".encode(), value.encode())
    return text


TEXTS = st.text(
    st.sampled_from("aZ0-_.~ '\"\\/:@?#%&=;,<\0\t\n\x1b\x7f\x85é中\u200d\u202e😀"), max_size=8
)
"""Short texts. With all the characters of Unicode, Hypothesis would need seconds to begin."""

_BYTES = [b"\0", b"\t", b"\n", b"\r", b" ", b"%", b"%00", b"%0d%0a", b"\xc2\x85", b"\xff", b"\\"]


def mutations(
    samples: Sequence[bytes], pieces: Sequence[bytes] = ()
) -> st.SearchStrategy[Mutation]:
    """Generate changed samples, and now and then any bytes at all.

    :param pieces: what is inserted besides single bytes.
    """
    inserted = st.one_of(
        st.just(b""), st.sampled_from([*pieces, *samples, *_BYTES]), st.binary(max_size=4)
    )
    change = st.tuples(st.integers(0, 400), st.sampled_from([0, 0, 1, 2, 7, 40]), inserted)
    sample = st.one_of(*[st.just(sample) for sample in samples], st.binary(max_size=60))
    return st.builds(Mutation, sample, st.lists(change, max_size=4).map(tuple))
