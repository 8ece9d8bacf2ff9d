"""Check the Chinese pages against the English ones that they follow: `make translations`.

docs/zh-CN/NAME.md follows docs/NAME.md, and README.zh-CN.md follows README.md. The last line of a
Chinese page is a comment with the hashes of both pages as they were when somebody last compared
them, and a sentence at its beginning tells readers the date. This command reports

- a page of a pair that has changed since then, and what to do about it;
- code blocks, headings, tables, names in code or links that only one of a pair has;
- missing or superfluous spaces between Chinese and Latin text, and punctuation of the wrong width.

With ``--record``, it writes the present hashes and date into the Chinese pages that have none of
the other faults. Do that after you have compared them.
"""

from __future__ import annotations

import argparse
import hashlib
import posixpath
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "docs/zh-CN"
RECORD = re.compile(
    r"<!-- English: ([0-9a-f]{12}\b|none), this page: ([0-9a-f]{12}\b|none) -->\n\Z"
)
DATE = re.compile(r"\d{4} 年 \d{1,2} 月 \d{1,2} 日")
BLOCK = re.compile(r"^( *)(```\S*[^\n]*\n.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HAN = r"[\u3400-\u9fff]"


class Pair(NamedTuple):
    """An English page and the Chinese one that follows it, as paths below the root."""

    english: str
    chinese: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Check the Chinese pages against the English ones."
    )
    parser.add_argument("--record", action="store_true", help="record that they correspond now")
    record = parser.parse_args().record
    problems = []
    for pair in pairs(ROOT):
        found = list(differences(ROOT, pair))
        if record and not found:
            write_record(ROOT, pair)
        problems += found + list(changes(ROOT, pair))
    if problems:
        sys.exit("\n".join(problems))


def pairs(root: Path) -> list[Pair]:
    pages = sorted(path.name for path in (root / FOLDER).glob("*.md"))
    found = [Pair(f"docs/{name}", f"{FOLDER}/{name}") for name in pages if name != "index.md"]
    return [Pair("README.md", "README.zh-CN.md"), *found]


def read(root: Path, page: str) -> str:
    return (root / page).read_text(encoding="utf-8")


def hashes(root: Path, pair: Pair) -> tuple[str, str]:
    """Return the hashes of both pages as they are now, without the recorded hashes."""
    own = DATE.sub("", RECORD.sub("", read(root, pair.chinese)), count=1)
    english, chinese = (
        hashlib.sha256(text.rstrip().encode()).hexdigest()[:12]
        for text in (read(root, pair.english), own)
    )
    return english, chinese


def changes(root: Path, pair: Pair) -> Iterator[str]:
    """Say which of the pages has changed since they were last compared, and what to do."""
    found = RECORD.search(read(root, pair.chinese))
    if not found:
        yield f"{pair.chinese} has no record of the English page: run make translations RECORD=1"
        return
    english, chinese = hashes(root, pair)
    if english != found[1]:
        # The record may have come with a merge, and later merges contain it too.
        log = f"git log -m --reverse --format=%H -S{found[1]} -- {pair.chinese}"
        commit = f"$({log} | head -n 1)"
        yield (
            f"{pair.english} has changed, and {pair.chinese} may be out of date. To see what has"
            f" changed, run\n    git diff {commit} -- {pair.english}\n  Change the Chinese page in"
            " the same way. Then run make translations RECORD=1"
        )
    elif chinese != found[2]:
        yield (
            f"{pair.chinese} has changed, and {pair.english} has not. If more than the wording has"
            " changed, change the English page too. Then run make translations RECORD=1"
        )


def write_record(root: Path, pair: Pair) -> None:
    text = read(root, pair.chinese)
    english, chinese = hashes(root, pair)
    found = RECORD.search(text)
    if found and found.groups() == (english, chinese):
        return
    now = datetime.now(UTC)
    text = DATE.sub(f"{now.year} 年 {now.month} 月 {now.day} 日", text, count=1)
    text = RECORD.sub("", text).rstrip() + "\n\n"
    text += f"<!-- English: {english}, this page: {chinese} -->\n"
    (root / pair.chinese).write_text(text, encoding="utf-8")
    print(f"Recorded: {pair.chinese} follows {pair.english} of today")


def differences(root: Path, pair: Pair) -> Iterator[str]:
    """Say what only one of the pages contains, and what is wrong with the Chinese text."""
    english, chinese = Page(read(root, pair.english)), Page(read(root, pair.chinese))
    for number, (one, other) in enumerate(zip(english.blocks, chinese.blocks, strict=False), 1):
        if one != other:
            yield f"{pair.chinese}: code block {number} is not that of {pair.english}:\n{one}"
    for what in ("blocks", "headings", "tables"):
        one, other = getattr(english, what), getattr(chinese, what)
        if what == "blocks":
            one, other = len(one), len(other)
        if one != other:
            yield f"{pair.chinese} has other {what} than {pair.english}: {other}, not {one}"
    only = [
        sorted(english.code - chinese.code),
        sorted(chinese.code - english.code),
        sorted(english.links(pair.english) - chinese.links(pair.chinese)),
        sorted(chinese.links(pair.chinese) - english.links(pair.english)),
    ]
    texts = ("does not name", "alone names", "does not link to", "alone links to")
    yield from (
        f"{pair.chinese} {text}: {' '.join(found)}"
        for text, found in zip(texts, only, strict=True)
        if found
    )
    if len(DATE.findall(chinese.prose)) != 1:
        yield f"{pair.chinese} has to contain one date, that of the English page: 2026 年 1 月 1 日"
    yield from (f"{pair.chinese}: {text}" for text in typography(chinese.prose))


class Page:
    """What can be compared between a page and its translation."""

    def __init__(self, text: str) -> None:
        text = RECORD.sub("", text)
        self.blocks = [block for _, block in BLOCK.findall(text)]
        prose = BLOCK.sub("", text)
        self.headings = re.findall(r"^(#+) ", prose, re.MULTILINE)
        self.tables = [
            len(table.splitlines())
            for table in re.findall(r"((?:^ *\|.*\n)+)", prose, re.MULTILINE)
        ]
        self.code = {" ".join(code.split()) for code in CODE.findall(joined(prose))}
        self.prose = prose

    def links(self, page: str) -> set[str]:
        """Return the files of the repository and the addresses that the page links to."""
        found = set()
        for target in LINK.findall(joined(self.prose)):
            file = target.partition("#")[0]
            if "://" not in target:
                file = posixpath.normpath(posixpath.join(posixpath.dirname(page), file or "."))
                file = page if not target.partition("#")[0] else file
                file = file.replace(f"{FOLDER}/", "docs/").replace(".zh-CN.md", ".md")
            found.add(file)
        # Each page of a pair links to the other one.
        return found - {page, page.replace(f"{FOLDER}/", "docs/"), "README.md"}


def joined(prose: str) -> str:
    """Return a text with each of its paragraphs in one line."""
    return re.sub(r"(?<=\S)\n *(?=[^\s|#\-*>0-9])", " ", prose)


def typography(prose: str) -> Iterator[str]:
    """Say where Chinese and Latin text touch, and which punctuation has the wrong width."""
    # Code counts as a word. Of a link, only the text is visible.
    shown = LINK.sub("]", CODE.sub("x", prose)).replace("![", "")
    for line in re.split(r" *[|\n] *", shown):
        plain = re.sub(r"\*\*(?: (?=\S))?", "", line).replace("[", "").replace("]", "")
        for pattern, fault in (
            (rf"{HAN}[A-Za-z0-9]|[A-Za-z0-9%]{HAN}", "needs a space"),
            (rf"{HAN}[,;:!?()]|[,;:!?]{HAN}", "needs full-width punctuation"),
            (r"[，。；：！？（）、] +\S|\S +[，。；：！？、（）]", "has a space too many"),
            (rf"{HAN}\"|\"{HAN}|「|」", "needs the quotation marks “”"),
        ):
            if found := re.search(pattern, plain):
                start = max(found.start() - 12, 0)
                yield f"“{plain[start : found.end() + 12]}” {fault}"


if __name__ == "__main__":
    main()
