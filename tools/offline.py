"""Check or write the list of packages in docs/offline.md: a part of `make release`.

The list is exact for the Python version and the kind of machine that its first line names. This
command downloads the packages on it into dist/offline, together with the wheel, and installs the
wheel with both extras from that folder alone into a new virtual environment. What is then installed
must be the list: no package missing, none too many, and the licences as stated.

With ``--update``, the newest versions are installed instead, and become the list.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs/offline.md", ROOT / "docs/zh-CN/offline.md"]
WHEELS = ROOT / "dist/offline"
NAME = "flask-devkit-sso"
EXTRAS = ("redis", "postgresql")
LIST = re.compile(r"(?<=```text\n)# Python [^\n]*\n.*?(?=```\n)", re.DOTALL)

DESCRIBE = """
import importlib.metadata, json
print(json.dumps([
    {"name": d.metadata["Name"], "version": d.version, "requires": d.requires or [],
     "licence": d.metadata["License-Expression"] or "", "old": d.metadata["License"] or "",
     "classifiers": d.metadata.get_all("Classifier") or []}
    for d in importlib.metadata.distributions()]))
"""

# Imports what the package imports only when it is needed, and signs somebody in.
TRY = """
import authlib, cryptography, flask, psycopg, redis
from flask_devkit_sso import DevKitSSO, current_user, login_required
from flask_devkit_sso.testing import login_as
app = flask.Flask("tried", instance_path={folder!r})
app.config["SECRET_KEY"] = "not used for anything else"
DevKitSSO(app)
app.add_url_rule("/", "home", login_required(lambda: current_user.username))
client = app.test_client()
login_as(client, "ada")
assert client.get("/").text == "ada"
"""


class Package(NamedTuple):
    """An installed package."""

    name: str
    version: str
    licence: str
    requires: list[Requirement]


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the list of packages in docs/offline.md.")
    parser.add_argument("--update", action="store_true", help="write the newest versions into it")
    update = parser.parse_args().update
    try:
        (wheel,) = (ROOT / "dist").glob("*.whl")
    except ValueError:
        raise SystemExit("dist does not contain one wheel. Run make release") from None
    before = LIST.findall(PAGES[0].read_text(encoding="utf-8"))[0]
    listed_for = before.partition("\n")[0]
    if not update and listed_for != machine():
        print(f"Not checked here: the list in docs/offline.md, which is for {listed_for[2:]}")
        return
    with tempfile.TemporaryDirectory() as name:
        download(wheel, before, Path(name), newest=update)
        after = install(wheel, Path(name))
    if update:
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            page.write_text(LIST.sub(lambda _: after, text), encoding="utf-8")
            print(f"Written: {page.relative_to(ROOT)}")
        print("If the list has changed, run make translations RECORD=1")
    elif before != after:
        raise SystemExit(
            f"docs/offline.md does not list what was installed, which is:\n\n{after}\n"
            "Run make release UPDATE=1"
        )
    count = after.count("==")
    print(
        f"Installed from dist/offline, without an index: the wheel and {count} packages, as listed"
    )


def machine() -> str:
    """Return the first line of the list: what its wheels are for."""
    return (
        f"# Python {sys.version_info.major}.{sys.version_info.minor}, {platform.system()} on"
        f" {platform.machine()}"
    )


def download(wheel: Path, listed: str, work: Path, *, newest: bool) -> None:
    """Put the wheel, and those of the packages on the list, into dist/offline."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
    if newest:
        what = [f"{wheel}[{','.join(EXTRAS)}]"]
    else:
        (work / "list.txt").write_text(listed, encoding="utf-8")
        what = ["--no-deps", "--requirement", str(work / "list.txt")]
    run([*command, "--dest", str(WHEELS), *what], os.environ)
    shutil.copy(wheel, WHEELS)


def install(wheel: Path, work: Path) -> str:
    """Install from dist/offline into a new environment, try it, and return the list."""
    run([sys.executable, "-m", "venv", str(work / "venv")], os.environ)
    python = str(work / "venv/bin/python")
    # pip's own configuration could name other folders or an index.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = [python, "-m", "pip"]
    what = f"{NAME}[{','.join(EXTRAS)}]"
    run([*pip, "install", "--quiet", "--no-index", "--find-links", str(WHEELS), what], clean)
    run([*pip, "check"], clean)
    run([str(work / "venv/bin/flask"), "devkit-sso", "--help"], clean, cwd=work)
    run([python, "-c", TRY.format(folder=str(work / "instance"))], clean, cwd=work)
    files = sorted(path.name for path in WHEELS.iterdir())
    packages = describe(run([python, "-c", DESCRIBE], clean))
    if len(files) != len(packages):
        raise SystemExit(f"Not all of these were needed: {files}")
    return listing(packages)


def run(command: list[str], environment: Mapping[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=dict(environment), cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def describe(printed: str) -> dict[str, Package]:
    """Return the installed packages by their names, without the environment's own."""
    return {
        canonicalize_name(entry["name"]): Package(
            canonicalize_name(entry["name"]),
            entry["version"],
            licence(entry["licence"], entry["old"], entry["classifiers"]),
            [Requirement(text) for text in entry["requires"]],
        )
        for entry in json.loads(printed)
        if entry["name"] not in ("pip", "setuptools", "wheel")
    }


def licence(expression: str, old: str, classifiers: list[str]) -> str:
    """Return a package's licence, from the newest kind of metadata that it has."""
    found = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    short = old if 0 < len(old) < 40 and "\n" not in old else ""
    return expression or short or ", ".join(found) or "?"


def listing(packages: dict[str, Package]) -> str:
    """Return the list: first what everybody needs, then what each extra adds."""
    seen = {NAME}
    lines = [machine()]
    for extra in ("", *EXTRAS):
        needed = sorted(closure(packages, NAME, {extra}) - seen)
        seen |= set(needed)
        lines += ["", f"# for flask-devkit-sso[{extra}]"] if extra else []
        for name in needed:
            pin = f"{name}=={packages[name].version}"
            lines.append(f"{pin:<30} # {packages[name].licence}")
            lines += only_for_older(packages[name])
    return "\n".join(lines) + "\n"


def only_for_older(package: Package) -> list[str]:
    """Return, as comments, what a package needs with older patch versions of this Python."""
    oldest = {"python_full_version": f"{sys.version_info.major}.{sys.version_info.minor}.0"}
    return [
        f"# {requirement.name} as well, if {marker}"
        for requirement in package.requires
        if (marker := requirement.marker)
        and not marker.evaluate({"extra": ""})
        and marker.evaluate({"extra": "", **oldest})
    ]


def closure(packages: dict[str, Package], name: str, extras: set[str]) -> set[str]:
    """Return the names of a package and of everything that it needs."""
    found = {name}
    for requirement in packages[name].requires:
        needed = canonicalize_name(requirement.name)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            found |= closure(packages, needed, requirement.extras)
    return found


if __name__ == "__main__":
    main()
