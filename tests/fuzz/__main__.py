"""Fuzz every target for its share of the time, and print a table. The status is 1 for a finding."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis.configuration import set_hypothesis_home_dir

from .files import file_targets
from .requests import request_targets
from .responses import response_targets
from .running import Result, Target, run
from .stores import store_targets

# Reading the system's CA certificates takes 50 ms for each application.
os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, help="repeats the inputs of an earlier run")
    parser.add_argument("--target", action="append", help="the name of a target; may be repeated")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devkit-sso-fuzz-")))
        set_hypothesis_home_dir(folder / "hypothesis")
        targets: list[Target] = []
        for create in (request_targets, response_targets, file_targets, store_targets):
            (folder / create.__name__).mkdir()
            targets += stack.enter_context(create(folder / create.__name__))
        chosen = [target for target in targets if target.name in (options.target or [target.name])]
        if not chosen:
            parser.error(f"the targets are {', '.join(target.name for target in targets)}")
        results = [run(target, options.seconds / len(chosen), seed) for target in chosen]
    show(results)
    return 1 if any(result.finding for result in results) else 0


def show(results: list[Result]) -> None:
    for result in results:
        if result.finding:
            print(f"\n{result.finding}\n")
    print(f"{'target':<20}{'inputs':>10}{'seconds':>10}{'findings':>10}")
    for result in results:
        found = 1 if result.finding else 0
        print(f"{result.name:<20}{result.inputs:>10}{result.seconds:>10.1f}{found:>10}")


if __name__ == "__main__":
    sys.exit(main())
