"""Build the sdist and the wheel of the last commit into dist, and check them: `make release`.

- Both are built twice, in different folders, time zones and hash seeds, and must be identical byte
  for byte. Whoever builds the same commit with the same setuptools gets the same files.
- They contain every file of the commit that belongs into them, unchanged, and nothing else.
- They contain the licence and no secret, and `twine check` accepts them.

dist/CONTENTS lists what they contain, and dist/SHA256SUMS their hashes. If something is wrong, the
status is 1 and there is no dist.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from build import ProjectBuilder
from build.env import DefaultIsolatedEnv

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
NAME = "flask_devkit_sso"

Files = Mapping[str, bytes]
"""Contents of files by their paths, without the archive's own top folder."""

NOT_SHIPPED = {".ci/run", ".gitignore"}
"""Files of the repository that are of no use without it."""

GENERATED_IN_SDIST = {
    "PKG-INFO",
    *(
        f"{NAME}.egg-info/{name}.txt"
        for name in ("SOURCES", "dependency_links", "entry_points", "requires", "top_level")
    ),
    f"{NAME}.egg-info/PKG-INFO",
}
GENERATED_IN_WHEEL = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}

SECRET_FILES = re.compile(
    r"(?:^|/)(?:\.env|\.netrc|\.pypirc|devkit_sso\.toml|id_[a-z0-9]+|[^/]*\.(?:db|key|p12|pem|pfx))$"
)
SECRETS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]"
    rb"|\b(?:AKIA[A-Z0-9]{16}|gh[opsu]_\w{36}|github_pat_\w{22,}|glpat-[\w-]{20}|pypi-AgE\w{16,})"
)
"""What no file may contain: private keys, and the tokens of common services."""


def main() -> None:
    epoch = git("log", "-1", "--format=%ct").decode().strip()
    print(f"Commit {git('log', '-1', '--format=%h of %ci').decode().strip()}")
    if git("status", "--porcelain", "--untracked-files=no"):
        print("Note: changes that are not committed are not part of the release")
    shutil.rmtree(DIST, ignore_errors=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as name, DefaultIsolatedEnv() as env:
        builds = [
            build(env, Path(name, "first"), epoch, TZ="UTC", PYTHONHASHSEED="0"),
            build(env, Path(name, "second/with spaces"), epoch, TZ="Asia/Shanghai"),
        ]
        # The commit as it was exported: nothing else decides what belongs into the archives.
        commit = tar_files(git("archive", "--format=tar", "HEAD"), strip=False)
        problems = check(commit, *builds)
        if not problems:
            shutil.copytree(builds[0], DIST)
    if not problems:
        problems = twine_check()
    if problems:
        shutil.rmtree(DIST, ignore_errors=True)
        sys.exit("\n".join(["The release is not right:", *(f"- {text}" for text in problems)]))
    sums = [f"{digest(path)}  {path.name}\n" for path in archives()]
    (DIST / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print("Built twice and identical, complete, with the licence, without secrets. In dist:")
    print("".join(sums), end="")
    if b"(unreleased)" in commit["CHANGELOG.md"]:
        print("Note: CHANGELOG.md still says (unreleased). Write the date there before you publish")


def git(*arguments: str) -> bytes:
    try:
        return subprocess.run(
            ["/usr/bin/env", "git", "-C", ROOT, *arguments], stdout=subprocess.PIPE, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit("A release is built from a commit, so it needs git and a clone") from error


def build(env: DefaultIsolatedEnv, folder: Path, epoch: str, **environment: str) -> Path:
    """Build the sdist of the last commit, and from it the wheel; return the folder of both."""

    def run(
        cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
    ) -> None:
        given = os.environ | environment | dict(extra_environ or {}) | {"SOURCE_DATE_EPOCH": epoch}
        done = subprocess.run(cmd, cwd=cwd, env=given, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"The build failed:\n{done.stdout}{done.stderr}")

    source, built = folder / "source", folder / "built"
    unpack(git("archive", "--format=tar", "HEAD"), source)
    builder = ProjectBuilder.from_isolated_env(env, source, runner=run)
    env.install(builder.build_system_requires)
    env.install(builder.get_requires_for_build("sdist") | builder.get_requires_for_build("wheel"))
    sdist = Path(builder.build("sdist", built))
    sdist.write_bytes(normalised(sdist.read_bytes(), int(epoch)))
    unpack(gzip.decompress(sdist.read_bytes()), folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    ProjectBuilder.from_isolated_env(env, unpacked, runner=run).build("wheel", built)
    return built


def unpack(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def normalised(sdist: bytes, epoch: int) -> bytes:
    """Return a tar.gz without what depends on the machine: owners, times, modes and order.

    setuptools does not do that itself.
    """
    inner, outer = io.BytesIO(), io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as old,
        tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mtime = member.type, member.size, epoch
            clean.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(clean, old.extractfile(member) if member.isfile() else None)
    with gzip.GzipFile("", "wb", fileobj=outer, mtime=epoch) as packed:
        packed.write(inner.getvalue())
    return outer.getvalue()


# What is in an archive


def tar_files(archive: bytes, *, strip: bool = True) -> Files:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name.partition("/")[2] if strip else member.name: content.read()
            for member in tar.getmembers()
            if (content := tar.extractfile(member))
        }


def zip_files(archive: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def check(commit: Files, first: Path, second: Path) -> list[str]:
    """Write what the archives contain into CONTENTS; return what is wrong with them."""
    version = settings(commit["setup.cfg"])["metadata"]["version"]
    sdist, wheel = f"{NAME}-{version}.tar.gz", f"{NAME}-{version}-py3-none-any.whl"
    names = [sorted(path.name for path in folder.iterdir()) for folder in (first, second)]
    if names != [sorted([sdist, wheel])] * 2:
        return [f"the builds made {names[0]} and {names[1]}, not {sdist} and {wheel}"]
    problems = [
        f"{name}: the two builds differ"
        for name in names[0]
        if digest(first / name) != digest(second / name)
    ]
    contents = {
        sdist: tar_files((first / sdist).read_bytes()),
        wheel: zip_files((first / wheel).read_bytes()),
    }
    text = "".join(listed(name, files) for name, files in contents.items())
    (first / "CONTENTS").write_text(text, encoding="utf-8")
    for name, files in contents.items():
        problems += [f"{name}: {text}" for text in find_secrets(files)]
    problems += [f"{sdist}: {text}" for text in check_sdist(commit, contents[sdist])]
    problems += [f"{wheel}: {text}" for text in check_wheel(commit, contents[wheel], version)]
    if not commit["CHANGELOG.md"].startswith(f"# Changelog\n\n## {version} ".encode()):
        problems.append(f"CHANGELOG.md does not begin with an entry for {version}")
    return problems


def listed(name: str, files: Files) -> str:
    """Return the list of an archive's files, with their sizes in bytes."""
    title = f"{name}: {len(files)} files, {sum(map(len, files.values())):,} bytes\n"
    print(title, end="")
    return title + "".join(f"{len(files[path]):>9,}  {path}\n" for path in sorted(files)) + "\n"


def check_sdist(commit: Files, files: Files) -> list[str]:
    expected = {path: content for path, content in commit.items() if path not in NOT_SHIPPED}
    # setuptools writes setup.cfg again, without its comments.
    if settings(files.get("setup.cfg", b"")) == settings(commit["setup.cfg"]):
        expected["setup.cfg"] = files["setup.cfg"]
    problems = differences(expected, files, GENERATED_IN_SDIST)
    return problems + check_licence(commit, files, "PKG-INFO", "LICENSE")


def settings(setup_cfg: bytes) -> dict[str, dict[str, str]]:
    parser = ConfigParser()
    parser.read_string(setup_cfg.decode())
    return {name: dict(parser[name]) for name in parser.sections() if name != "egg_info"}


def check_wheel(commit: Files, files: Files, version: str) -> list[str]:
    expected = {
        path: content
        for path, content in commit.items()
        if path.startswith(f"{NAME}/") or path == "pytest_devkit_sso.py"
    }
    info = f"{NAME}-{version}.dist-info"
    licence = f"{info}/licenses/LICENSE"
    expected[licence] = commit["LICENSE"]
    problems = differences(expected, files, {f"{info}/{name}" for name in GENERATED_IN_WHEEL})
    return problems + check_licence(commit, files, f"{info}/METADATA", licence)


def differences(expected: Files, files: Files, generated: set[str]) -> list[str]:
    """Return in which way files are not those expected; the content of generated ones is free."""
    names = set(expected) | generated
    return [
        *(f"{path} is missing" for path in sorted(names - set(files))),
        *(f"{path} does not belong there" for path in sorted(set(files) - names)),
        *(
            f"{path} is not that of the commit"
            for path, content in sorted(expected.items())
            if path in files and files[path] != content
        ),
    ]


def check_licence(commit: Files, files: Files, metadata: str, licence: str) -> list[str]:
    fields = BytesParser().parsebytes(files.get(metadata, b""))
    found = (fields["License-Expression"], fields["License-File"], files.get(licence))
    if found == ("BSD-3-Clause", "LICENSE", commit["LICENSE"]):
        return []
    return [f"{metadata} and {licence} do not say BSD-3-Clause with the text of LICENSE"]


def find_secrets(files: Files) -> list[str]:
    """Return which files look like a secret, without the secret."""
    problems = []
    for path, content in sorted(files.items()):
        if SECRET_FILES.search(str(PurePosixPath(path))):
            problems.append(f"{path} has the name of a file with secrets")
        if found := SECRETS.search(content):
            line = content.count(b"\n", 0, found.start()) + 1
            problems.append(f"{path}, line {line}, looks like a key or a token")
    return problems


def twine_check() -> list[str]:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, archives())]
    done = subprocess.run(command, capture_output=True, text=True)
    return [f"twine check: {done.stdout}{done.stderr}"] if done.returncode else []


def archives() -> list[Path]:
    return sorted(path for path in DIST.iterdir() if path.suffix in (".gz", ".whl"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
