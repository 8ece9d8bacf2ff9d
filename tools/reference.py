"""Write what docs/settings.md and docs/api.md take from the code: `make reference`.

In both pages, comments mark where it goes:

- ``<!-- settings -->``: the table of all settings;
- ``<!-- reference: flask_devkit_sso.User -->``: the entry of a public name, made from its signature
  and docstring. ``with members`` after the name adds the public members of a class. The name of a
  module is replaced by its docstring;
- ``<!-- end -->``: the end of either.

With ``--check`` nothing is written, and the status is 1 when a page is out of date.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from flask_devkit_sso.config.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs/settings.md", ROOT / "docs/api.md"]
PLACE = re.compile(
    r"(<!-- (?:settings|reference: (?P<name>[\w.]+)(?P<members> with members)?) -->\n)"
    r".*?"
    r"(?P<end><!-- end -->\n)",
    re.DOTALL,
)
FIELDS = re.compile(r"((?:^:\w+[^:`]*:(?: .*)?\n(?:[ \t]+.*\n)*)+)", re.MULTILINE)
"""A field list of reStructuredText: each line that begins with a colon, and its indented lines."""
UNITS = {86400: "day", 3600: "hour", 60: "minute"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Definition(NamedTuple):
    """What a name of a module or class stands for, in the source."""

    name: str
    node: ast.AST
    doc: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the reference parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args().check
    outdated = False
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = fill(before)
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(
                    before.splitlines(keepends=True),
                    after.splitlines(keepends=True),
                    f"{page.name} as it is",
                    f"{page.name} as it should be",
                )
            )
            outdated |= before != after
        elif before != after:
            page.write_text(after, encoding="utf-8")
            print(f"Written: {page.relative_to(ROOT)}")
    if outdated:
        sys.exit("The reference is out of date: run make reference")


def fill(page: str) -> str:
    """Return a page with its marked places filled in."""
    places = list(PLACE.finditer(page))
    anchors = {}
    for place in places:
        for name in names(place):
            anchors[name] = re.sub(r"[^\w-]", "", name.lower())

    def filled(place: re.Match[str]) -> str:
        content = "\n\n".join(entries(place, anchors)) if place["name"] else settings_table()
        return f"{place[1]}\n{content}\n\n{place['end']}"

    return PLACE.sub(filled, page)


def settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for item in fields(Settings):
        key = f"`{PREFIX}{item.name.upper()}`"
        rows.append(f"| {key} | {default(item.default)} | {item.metadata['doc']} |")
    return "\n".join(rows)


def default(value: Any) -> str:
    if value is None:
        return "none"
    if not isinstance(value, float):
        return f"`{value}`"
    for seconds, unit in UNITS.items():
        if value >= seconds and value % seconds == 0:
            count = round(value / seconds)
            return f"`{value:g}` ({count} {unit}{'s' if count > 1 else ''})"
    return f"`{value:g}`"


# The API reference


def definitions(place: re.Match[str]) -> list[Definition]:
    """Return the definition of the name at a marked place, and then those of its members."""
    module, _, name = (place["name"] or "").rpartition(".")
    if not module or source(place["name"]):
        return []
    defined = define(module, name)
    members = []
    if place["members"] and isinstance(defined.node, ast.ClassDef):
        members = [
            Definition(f"{name}.{member}", node, doc)
            for member, node, doc in members_of(defined.node)
        ]
        # Attributes last: they matter least.
        members.sort(key=lambda member: not isinstance(member.node, Function))
    return [defined, *members]


def names(place: re.Match[str]) -> list[str]:
    return [defined.name for defined in definitions(place)]


def entries(place: re.Match[str], anchors: Mapping[str, str]) -> Iterator[str]:
    text = source(place["name"])
    if text:
        yield markdown(ast.get_docstring(ast.parse(text)) or "", anchors)
    for name, node, doc in definitions(place):
        if not doc:
            raise SystemExit(f"{name} has no docstring")
        yield f"{'####' if '.' in name else '###'} `{name}`"
        signed = signature(name.rpartition(".")[2], node)
        if signed:
            yield f"`{signed}`"
        yield markdown(doc, anchors, owner=name.partition(".")[0])


def markdown(doc: str, anchors: Mapping[str, str], owner: str = "") -> str:
    """Return the reStructuredText of a docstring as Markdown."""

    def link(target: str) -> str:
        short = target.rpartition(".")[2]
        shown = short if target.startswith("~") else target
        for name in (".".join(target.lstrip("~").split(".")[-2:]), f"{owner}.{short}", short):
            if name in anchors:
                return f"[`{shown}`](#{anchors[name]})"
        return f"`{shown}`"

    def inline(text: str) -> str:
        text = re.sub(r":\w+:`([^`]+)`", lambda role: link(role[1]), text)
        text = re.sub(r"\bdocs/(\w+\.md)\b", r"[\1](\1)", text)
        return re.sub(r"``([^`]+)``", r"`\1`", text)

    def item(field: str) -> str:
        """Return a field such as ``:param name: text`` as an item of a list."""
        found = re.fullmatch(r":(\w+)\s*([^:]*):\s*(.*)", " ".join(field.split()))
        if not found:
            raise SystemExit(f"This field of a docstring is not understood: {field}")
        kind, about, text = found[1], found[2], inline(found[3])
        if kind.startswith("raise"):
            errors = ", ".join(link(error.strip()) for error in about.split(","))
            return f"- Raises {errors} {text}"
        if kind.startswith("return"):
            return f"- Returns {text[:1].lower()}{text[1:]}"
        return f"- `{about.split()[-1]}`: {text}"

    def paragraphs(text: str) -> Iterator[str]:
        # What ends with a double colon, and the lines that are indented below it.
        for prose, code in re.findall(r"(?s:(.*?))(?:::\n\n((?: {4}.*\n|\n)+)|\Z)", f"{text}\n"):
            yield inline(prose.strip()) + (":" if code and not prose.endswith("\n\n") else "")
            if code:
                yield f"```text\n{textwrap.dedent(code).strip()}\n```"

    blocks: list[str] = []
    # Prose and lists of fields take turns.
    parts = re.split(
        r"((?:^:\w+[^:`]*:(?: .*)?\n(?:[ \t]+.*\n)*)+)", f"{doc}\n", flags=re.MULTILINE
    )
    for number, part in enumerate(parts):
        if number % 2:
            found = re.split(r"^(?=:)", part, flags=re.MULTILINE)
            blocks.append("\n".join(item(field) for field in found if field))
        else:
            blocks += paragraphs(part)
    return "\n\n".join(filter(None, blocks))


def source(module: str | None) -> str:
    """Return the source of a module; nothing if there is no such module."""
    try:
        found = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError:
        return ""
    return Path(found.origin).read_text("utf-8") if found and found.origin else ""


def define(module: str, name: str) -> Definition:
    """Return the definition of a name, wherever the module imports it from."""
    body = ast.parse(source(module)).body
    for defined in defined_in(body):
        if defined.name == name:
            return defined
    for node in body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            found = importlib.util.find_spec(module)
            package = found.parent if found else None
            relative = "." * node.level + (node.module or "")
            return define(importlib.util.resolve_name(relative, package), name)
    raise SystemExit(f"{module} has no {name}")


def defined_in(body: list[ast.stmt]) -> Iterator[Definition]:
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, Function | ast.ClassDef):
            yield Definition(node.name, node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = getattr(target, "attr", None) or getattr(target, "id", None)
            # A variable's docstring is the string behind it.
            value = following.value if isinstance(following, ast.Expr) else None
            doc = value.value if isinstance(value, ast.Constant) else None
            if name:
                yield Definition(name, node, textwrap.dedent(doc) if isinstance(doc, str) else "")


def members_of(node: ast.ClassDef) -> Iterator[Definition]:
    for defined in defined_in(node.body):
        if defined.name == "__init__" and isinstance(defined.node, Function):
            found = list(defined_in(defined.node.body))
        else:
            found = [defined]
        yield from (item for item in found if item.doc and not item.name.startswith("_"))


def signature(name: str, node: ast.AST) -> str:
    """Return how something is called; nothing for what is not called."""
    if isinstance(node, ast.ClassDef):
        return next(
            (
                signature(name, item.node)
                for item in defined_in(node.body)
                if item.name == "__init__"
            ),
            "",
        )
    if not isinstance(node, Function):
        return ""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if decorators & {"property", "cached_property", "pytest.fixture"}:
        return ""
    returned = ast.unparse(node.returns) if node.returns else "None"
    return f"{name}({parameters(node)}){'' if returned in ('None', 'F') else f' -> {returned}'}"


def parameters(node: Function) -> str:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    unset = [None] * (len(positional) - len(given.defaults))
    shown = [parameter(*pair) for pair in zip(positional, [*unset, *given.defaults], strict=True)]
    if given.vararg:
        shown.append(f"*{parameter(given.vararg)}")
    elif given.kwonlyargs:
        shown.append("*")
    shown += [parameter(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        shown.append(f"**{parameter(given.kwarg)}")
    return ", ".join(shown[1:] if shown[:1] == ["self"] else shown)


def parameter(given: ast.arg, value: ast.expr | None = None) -> str:
    kind = ast.unparse(given.annotation) if given.annotation else ""
    # F is some function: its name would tell a reader nothing.
    shown = given.arg if kind in ("", "F") else f"{given.arg}: {kind}"
    if value is None:
        return shown
    text = value.value if isinstance(value, ast.Constant) else None
    return f"{shown} = {json.dumps(text) if isinstance(text, str) else ast.unparse(value)}"


if __name__ == "__main__":
    main()
