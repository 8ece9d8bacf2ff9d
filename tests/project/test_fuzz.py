"""`make fuzz` reports what it finds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .. import processes

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


def test_a_finding_is_reduced_and_shown() -> None:
    # Only part of the development requirements.
    from ..fuzz.mutations import Mutation, mutations
    from ..fuzz.running import Target, run

    def check(value: Mutation) -> None:
        assert b"!" not in value.apply()

    target = Target("exclamation", mutations([b"sample"], [b"!"]), check)
    first, second = (run(target, 60, first_seed=1) for _ in range(2))
    assert first.finding.startswith("exclamation:\n")
    assert "Mutation(b'sample', ((0, 0, b'!'),))" in first.finding
    assert (first.inputs, first.finding) == (second.inputs, second.finding), "the seed decides"
    harmless = Target("harmless", mutations([b"sample"], [b"-"]), check)
    assert run(harmless, 0, first_seed=1).inputs == 1, "even if the time is up"


def test_the_command_prints_a_table() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", "1", "--target", "envelopes"],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, header, row = done.stdout.splitlines()
    assert first.startswith("seed ")
    assert header.split() == ["target", "inputs", "seconds", "findings"]
    assert (row.split()[0], row.split()[-1]) == ("envelopes", "0")
