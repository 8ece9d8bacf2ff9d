"""Run the benchmarks: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from . import guarded
from .measure import Result, compare
from .services import auth_server, redis_server


def table(results: list[Result], unit: str = "µs", factor: float = 1e6) -> None:
    """Print the results of one comparison."""
    width = max(len(result.name) for result in results)
    print(f"{'':{width}}  {unit:>8}  ratio: median  minimum  maximum")
    for result in results:
        print(
            f"{result.name:{width}}  {result.median * factor:8.1f}"
            f"  {result.ratio:13.2f}  {min(result.ratios):7.2f}  {max(result.ratios):7.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with auth_server() as server, redis_server(folder) as redis_url:
            print("Guarded request")
            contenders = guarded.contenders(server, redis_url, folder)
            table(
                compare(
                    contenders, guarded.BASELINE, rounds=arguments.rounds, calls=arguments.calls
                )
            )
            print("Unguarded request")
            contenders = guarded.unguarded(server, folder)
            table(
                compare(
                    contenders,
                    "without the extension",
                    rounds=arguments.rounds,
                    calls=arguments.calls,
                )
            )


if __name__ == "__main__":
    main()
