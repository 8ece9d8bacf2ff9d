"""The Chinese pages correspond to the English ones, and the command that says so finds faults."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ..processes import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.slow]

NAMES = ["README", "deployment", "failures", "offline", "quickstart", "writing_a_server"]
QUICKSTART = "docs/quickstart.md"
CHINESE = "docs/zh-CN/quickstart.md"


def faults(root: Path, page: str = "") -> list[str]:
    from tools.translations import changes, differences, pairs

    found = [pair for pair in pairs(root) if page in pair.english]
    assert found
    return [text for pair in found for how in (differences, changes) for text in how(root, pair)]


def test_the_chinese_pages_follow_the_english_ones() -> None:
    from tools.translations import pairs

    assert {pair.english.rpartition("/")[2].removesuffix(".md") for pair in pairs(ROOT)} >= set(
        NAMES
    )
    assert faults(ROOT) == []


def test_the_chinese_pages_quote_what_people_see() -> None:
    messages = (ROOT / "flask_devkit_sso/templates/devkit_sso/messages/zh.toml").read_text("utf-8")
    table = (ROOT / CHINESE).read_text("utf-8").partition("## 常见问题")[2]
    quoted = re.findall(r"^\|[^|“]*“([^”]+)”", table, re.MULTILINE)
    assert len(quoted) == 3
    assert [text for text in quoted if f'title = "{text}"' not in messages] == []


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A copy of two pages, in which a test may plant faults."""
    (tmp_path / "docs/zh-CN").mkdir(parents=True)
    for page in (QUICKSTART, CHINESE):
        shutil.copy(ROOT / page, tmp_path / page)
    return tmp_path


def change(root: Path, page: str, old: str, new: str) -> None:
    text = (root / page).read_text("utf-8")
    assert old in text
    (root / page).write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "old", "new", "says"),
    [
        (QUICKSTART, "an empty folder", "a new folder", f"{QUICKSTART} has changed, and {CHINESE}"),
        (QUICKSTART, "an empty folder", "a new folder", "git diff $(git log "),
        (CHINESE, "空目录", "新目录", f"{CHINESE} has changed, and {QUICKSTART} has not"),
        (CHINESE, "flask run\n", "flask run --debug\n", "code block 4 is not that of"),
        (CHINESE, "## 常见问题", "### 常见问题", "has other headings"),
        (CHINESE, "`--port 9001`", "`--port`", "does not name: --port 9001"),
        (CHINESE, "](deployment.md)", "](failures.md)", "does not link to: docs/deployment.md"),
        (
            CHINESE,
            "| 应用无法启动，报 `ConfigError` |",
            "应用无法启动 `ConfigError`",
            "other tables",
        ),
        (CHINESE, "运行一个小应用，", "运行一个小应用, ", "needs full-width punctuation"),
        (CHINESE, "以及一份本包的源码", "以及一份Flask扩展的源码", "needs a space"),
        (CHINESE, "年 11 月", "年底", "has to contain one date"),
    ],
)
def test_a_difference_is_reported(pages: Path, page: str, old: str, new: str, says: str) -> None:
    assert faults(pages, "quickstart") == []
    change(pages, page, old, new)
    assert says in "\n".join(faults(pages, "quickstart"))


def test_the_printed_command_shows_what_has_changed_since_a_merge(pages: Path) -> None:
    from tools.translations import pairs, write_record

    def run(command: str) -> str:
        return subprocess.run(
            ["/bin/sh", "-ec", command], cwd=pages, capture_output=True, text=True, check=True
        ).stdout

    (_, pair) = pairs(pages)
    run(
        "git init -q -b main && git config user.name A && git config user.email a@example.com"
        " && git add . && git commit -qm first && git checkout -qb other"
    )
    change(pages, QUICKSTART, "an empty folder", "a new folder")
    run("git commit -qam second && git checkout -q main && git commit -q --allow-empty -m third")
    run("git merge -q --no-commit other")
    write_record(pages, pair)
    run("git add . && git commit -qm merge && git checkout -qb late main~1")
    run("git commit -q --allow-empty -m fourth && git merge -q --no-ff -m late main")
    change(pages, QUICKSTART, "a new folder", "a clean folder")
    run("git commit -qam fifth")
    found = "\n".join(faults(pages, "quickstart"))
    command = re.findall(r"^ +(git diff .*)", found, re.MULTILINE)
    assert len(command) == 1
    diff = run(command[0])
    assert "a clean folder" in diff
    assert "an empty folder" not in diff


def test_recording_ends_the_report_and_renews_the_date(pages: Path) -> None:
    from tools.translations import DATE, pairs, write_record

    (_, pair) = pairs(pages)
    change(pages, QUICKSTART, "an empty folder", "a new folder")
    old = DATE.sub("2020 年 1 月 1 日", (pages / CHINESE).read_text("utf-8"))
    (pages / CHINESE).write_text(old, encoding="utf-8")
    assert faults(pages, "quickstart") != []
    write_record(pages, pair)
    assert faults(pages, "quickstart") == []
    assert " 2020 年" not in (pages / CHINESE).read_text("utf-8")


def test_a_new_page_can_be_recorded(pages: Path) -> None:
    from tools.translations import RECORD, pairs, write_record

    (_, pair) = pairs(pages)
    new = RECORD.sub("", (pages / CHINESE).read_text("utf-8"))
    (pages / CHINESE).write_text(new, encoding="utf-8")
    assert "has no record" in "".join(faults(pages, "quickstart"))
    write_record(pages, pair)
    assert faults(pages, "quickstart") == []
