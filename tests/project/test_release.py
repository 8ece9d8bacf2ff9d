"""The parts of `make release` that take no time; it builds and installs the rest."""

from __future__ import annotations

import io
import re
import tarfile
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..documents import blocks
from ..processes import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.slow]


def config() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def packed(*, mtime: int, mode: int, owner: str, names: list[str]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode, member.uname = 4, mtime, mode, owner
            tar.addfile(member, io.BytesIO(b"text"))
    return archive.getvalue()


def test_an_sdist_does_not_depend_on_who_builds_it() -> None:
    from tools.release import normalised

    builds = [
        packed(mtime=1, mode=0o600, owner="ada", names=["a/b", "a/c"]),
        packed(mtime=2, mode=0o664, owner="bob", names=["a/c", "a/b"]),
    ]
    one, other = (normalised(archive, 1_700_000_000) for archive in builds)
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        members = tar.getmembers()
    assert [(m.name, m.mtime, m.mode, m.uname) for m in members] == [
        ("a/b", 1_700_000_000, 0o644, ""),
        ("a/c", 1_700_000_000, 0o644, ""),
    ]


def test_what_is_missing_or_changed_or_too_much_is_found() -> None:
    from tools.release import check_sdist, check_wheel

    commit = {
        "LICENSE": b"BSD",
        "setup.cfg": b"[metadata]\n# why\nname = x\n",
        "flask_devkit_sso/__init__.py": b"",
        "flask_devkit_sso/py.typed": b"",
        ".gitignore": b"dist/",
    }
    sdist = commit | {"PKG-INFO": b"License-Expression: MIT\nLicense-File: LICENSE\n"}
    sdist |= {"setup.cfg": b"[metadata]\nname = x\n\n[egg_info]\ntag_build = \n"}
    problems = check_sdist(commit, sdist)
    assert ".gitignore does not belong there" in problems
    assert "PKG-INFO and LICENSE do not say BSD-3-Clause with the text of LICENSE" in problems
    assert not [problem for problem in problems if problem.startswith("setup.cfg")]
    wheel = {"flask_devkit_sso/__init__.py": b"import os", "instance/devkit_sso.toml": b""}
    problems = check_wheel(commit, wheel, "1.0")
    assert "flask_devkit_sso/__init__.py is not that of the commit" in problems
    assert "flask_devkit_sso/py.typed is missing" in problems
    assert "instance/devkit_sso.toml does not belong there" in problems
    assert "flask_devkit_sso-1.0.dist-info/licenses/LICENSE is missing" in problems


def test_secrets_are_found_and_not_repeated() -> None:
    from tools.release import find_secrets

    # In two parts, so that this file is none.
    key = b"-----BEGIN RSA PRIVATE " + b"KEY-----\nMIIE"
    found = find_secrets(
        {
            "app/key.py": b"\n" + key,
            "ci.sh": b"TOKEN=gh" + b"p_" + b"a1" * 18,
            "instance/devkit_sso.toml": b"",
            "tls/server.pem": b"-----BEGIN CERTIFICATE-----",
            "docs/key.md": b"-----BEGIN RSA PRIVATE " + b"KEY-----\n...",
        }
    )
    assert found == [
        "app/key.py, line 2, looks like a key or a token",
        "ci.sh, line 1, looks like a key or a token",
        "instance/devkit_sso.toml has the name of a file with secrets",
        "tls/server.pem has the name of a file with secrets",
    ]


def test_the_list_for_machines_without_internet_access_satisfies_every_requirement() -> None:
    """`make release` finds out whether it is complete, by installing from it alone."""
    (text,) = blocks("docs/offline.md", "text")
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    options = config()
    declared = options["options"]["install_requires"]
    for extra in ("redis", "postgresql"):
        assert f"[{extra}]" in text
        declared += options["options.extras_require"][extra]
    for line in declared.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            version = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{line}: run make release UPDATE=1"


def test_the_index_in_the_docs_is_the_only_one() -> None:
    """A second index would let anybody publish a package with the same name."""
    (text,) = blocks("docs/offline.md", "ini")
    parser = ConfigParser()
    parser.read_string(text)
    assert "index-url" in parser["global"]
    assert "extra-index-url" not in parser["global"]


def test_the_version_is_in_one_place() -> None:
    """Besides the changelog, whose newest entry is about it."""
    version = config()["metadata"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == version
    places = [
        path
        for pattern in ("*.md", "*.toml", "docs/**/*.md", "docs/*.py", "flask_devkit_sso/**/*.py")
        for path in ROOT.glob(pattern)
        if re.search(rf"(?<![\w.-]){re.escape(version)}(?![\w.])", path.read_text("utf-8"))
    ]
    # The versions that were compared, as measured.
    known = {ROOT / "CHANGELOG.md", ROOT / "docs/performance.md"}
    assert set(places) - known == set()
