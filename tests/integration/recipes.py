"""Run the programs of docs/recipes*.md, each with a sandbox to sign in at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from .. import processes
from ..conftest import SECRET_KEY
from ..documents import ROOT

MODULES = Path(__file__).parent / "node_modules"
"""What npm has installed."""

BLOCK = re.compile(r"^```\w+\n(?:#|//|<!--) ([\w./-]+)(?: -->)?\n(.*?)^```$", re.M | re.S)
"""A block of code, which begins with a comment that names its file."""


@dataclass
class Running:
    """A recipe's application that runs, and its sandbox."""

    url: str
    sandbox_url: str
    folder: Path

    def change_person(self, **changes: object) -> None:
        """Change a person at the sandbox, as an administrator does."""
        url = f"{self.sandbox_url}/_sandbox/people"
        requests.post(url, json=changes, timeout=60).raise_for_status()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def sections(document: str) -> dict[str, str]:
    """Return the text below each heading of the second level."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    _, *found = re.split(r"^## ", text, flags=re.MULTILINE)
    return {heading: body for heading, _, body in (part.partition("\n") for part in found)}


def write(document: str, heading: str, folder: Path) -> None:
    """Write the files of a recipe into a folder."""
    for name, text in BLOCK.findall(sections(document)[heading]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@contextmanager
def recipe(
    document: str,
    heading: str,
    folder: Path,
    *command: str,
    redirect: str = "/sso/callback",
    settings: dict[str, str] | None = None,
) -> Iterator[Running]:
    """Run the application of a recipe with a sandbox. For the parameters see :func:`serving`."""
    write(document, heading, folder)
    with serving(folder, *command, redirect=redirect, settings=settings) as running:
        yield running


@contextmanager
def serving(
    folder: Path,
    *command: str,
    redirect: str = "/sso/callback",
    settings: dict[str, str] | None = None,
    port: int | None = None,
    origin: str | None = None,
) -> Iterator[Running]:
    """Run the application in a folder with a sandbox.

    :param command: what starts it, with ``PORT`` where the port is to be; by default ``flask run``.
    :param redirect: the path of the redirect URI, and its fragment.
    :param settings: more settings for the environment, without ``FLASK_``.
    :param port: by default any that is free.
    :param origin: the origin of the redirect URI, if another server is in front.
    """
    port = port or processes.free_port()
    url = f"http://127.0.0.1:{port}"
    command = command or ("-m", "flask", "run", "--port", "PORT")
    redirect_uri = (origin or url) + redirect
    with processes.sandbox(f"--redirect-uri={redirect_uri}") as exported:
        given = {
            "SECRET_KEY": SECRET_KEY,
            "DEVKIT_SSO_CLIENT_ID": exported["CLIENT_ID"],
            "DEVKIT_SSO_CLIENT_SECRET": exported["CLIENT_SECRET"],
            "DEVKIT_SSO_SERVER_URL": exported["SERVER_URL"],
            "DEVKIT_SSO_REDIRECT_URI": redirect_uri,
        }
        environment = processes.environment(**given | (settings or {}))
        # The recipe's own modules come first, then this checkout.
        environment["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, *(part.replace("PORT", str(port)) for part in command)],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                processes.wait_for(url, process)
                yield Running(url, exported["SERVER_URL"], folder)
            except AssertionError as error:
                error.add_note((folder / "log").read_text(errors="replace")[-5000:])
                raise
            finally:
                process.terminate()
                process.wait(60)
