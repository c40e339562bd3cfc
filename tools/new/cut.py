"""Leaves out what speaks of parts that a service does without: lines with marks, tests, pages, entries of JSON.

A mark is a comment at a line's end, `# only with accounts`, or around a block, `# only with accounts:` to `# end only`.
`# without accounts: code` stands for the line that takes its place. Two parts: `# only with accounts or events`.
"""

import ast
import json
import re
import textwrap
from collections.abc import Collection, Iterator
from typing import Any

MARK = re.compile(r"[ \t]*(?:#|<!--) only with ([\w ]+?)(:?)(?: -->)?$")
END = re.compile(r"[ \t]*(?:#|<!--) end only(?: -->)?$")
INSTEAD = re.compile(r"([ \t]*)(?:#|<!--) without (\w+): (.*?)(?: -->)?$")
WIDTH = 132  # of a page's lines


def marked(text: str, left_out: Collection[str]) -> str:
    """The text without the marks, and without what they say belongs to parts that are left out."""
    kept: list[str] = []
    keeps, inside = True, False
    for line in text.split("\n"):
        mark, instead = MARK.search(line), INSTEAD.fullmatch(line)
        if inside and END.fullmatch(line):
            keeps, inside = True, False
        elif mark and mark[2]:
            keeps, inside = not belongs(mark[1], left_out), True
        elif not keeps:
            pass
        elif mark:
            kept += [] if belongs(mark[1], left_out) else [line[: mark.start()]]
        elif instead:
            kept += [instead[1] + instead[3]] if instead[2] in left_out else []
        else:
            kept.append(line)
    if inside:
        raise ValueError("a block that is `only with` a part has no end")
    return "\n".join(kept)


def belongs(parts: str, left_out: Collection[str]) -> bool:
    return all(part in left_out for part in parts.split(" or "))


def variables(text: str, names: Collection[str]) -> str:
    """The text without the lines that begin with one of these settings, and a template's comment above it."""
    pattern = "|".join(names) + "|" + "|".join(f"{name.lower()}(?=: )" for name in names)
    text = re.sub(rf"(?m)^# .*\n#(?:{pattern})=.*\n\n?", "", text)
    return re.sub(rf"(?m)^[ \"(|`-]*(?:\{{name: )?(?:{pattern})(?:_FILE)?(?!\w).*\n", "", text)


# Python: tests by the words in them, imports that nothing uses any more


def tests(text: str, words: re.Pattern[str], *, alone: bool) -> str:
    """A module without what has the words in it, and what needs that; when it stands alone, what only that needed."""
    nodes = [node for node in ast.parse(text).body if named(node)]
    users = {name: {id(node) for node in nodes if mentions(node, name)} for node in nodes for name in named(node)}
    lines = text.split("\n")
    gone = {id(node) for node in nodes if words.search(searched(node, lines))}
    before = -1
    while len(gone) != before:
        before = len(gone)
        for node in nodes:
            uses_gone = any(id(node) in users[name] for other in nodes if id(other) in gone for name in named(other))
            asked_for = set().union(*(users[name] for name in named(node))) - {id(node)}
            if uses_gone or (alone and asked_for and asked_for <= gone):
                gone.add(id(node))
    return without_lines(text, [(first_line(node, lines), node.end_lineno or 0) for node in nodes if id(node) in gone])


def searched(node: ast.stmt, lines: list[str]) -> str:
    """Of an import the module alone: what it has others for stays."""
    if isinstance(node, ast.ImportFrom):
        return node.module or ""
    return "\n".join(lines[first_line(node, lines) - 1 : node.end_lineno])


def named(node: ast.stmt) -> list[str]:
    """What a statement at a module's top defines."""
    if isinstance(node, ast.ImportFrom):
        return [each.asname or each.name for each in node.names]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def mentions(node: ast.stmt, name: str) -> bool:
    """As a name, a parameter (which may be a fixture) or a string (which may be a fixture's name)."""
    return any(
        (isinstance(each, ast.Name) and each.id == name and isinstance(each.ctx, ast.Load))
        or (isinstance(each, ast.arg) and each.arg == name)
        or (isinstance(each, ast.Constant) and each.value == name)
        for each in ast.walk(node)
    )


def first_line(node: ast.stmt, lines: list[str]) -> int:
    """With decorators, and the comment that stands right above."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = min(node.lineno, *(each.lineno for each in decorators), node.lineno)
    while first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    return first


def without_lines(text: str, ranges: list[tuple[int, int]]) -> str:
    lines = text.split("\n")
    for first, last in sorted(ranges, reverse=True):
        del lines[first - 1 : last]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def unused_imports(text: str) -> str:
    """Without what is imported at the module's top and used nowhere in it."""
    tree = ast.parse(text)
    used = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
    used |= {word for each in ast.walk(tree) for word in words_of_annotations(each)}
    lines = text.split("\n")
    for node in reversed(tree.body):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        kept = [each for each in node.names if (each.asname or each.name).partition(".")[0] in used]
        if len(kept) < len(node.names) and "noqa" not in lines[node.lineno - 1]:
            lines[node.lineno - 1 : node.end_lineno] = import_lines(node, kept)
    text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).lstrip("\n")
    return re.sub(r"(?m)^((?:import|from) .*\n)\n{2,}(?=import |from )", r"\1\n", text)


def words_of_annotations(node: ast.AST) -> list[str]:
    """They may be strings."""
    found = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    texts = [each.value for part in found if part for each in ast.walk(part) if isinstance(each, ast.Constant)]
    return re.findall(r"\w+", " ".join(map(str, texts)))


def import_lines(node: ast.Import | ast.ImportFrom, kept: list[ast.alias]) -> list[str]:
    if not kept:
        return []
    names = [ast.unparse(each) for each in kept]
    if isinstance(node, ast.Import):
        return [f"import {', '.join(names)}"]
    start = f"from {'.' * node.level}{node.module or ''} import "
    if node.end_lineno == node.lineno:
        return [start + ", ".join(names)]
    return [f"{start}(", *(f"    {name}," for name in names), ")"]


# Pages


def page(text: str, words: re.Pattern[str]) -> str:
    """Markdown without the sentences, rows, code blocks and sections that have the words in them."""
    units = list(units_of(text))
    kept: list[str] = []
    hidden = 0  # the level of the section that is being left out
    for number, unit in enumerate(units):
        level = len(unit) - len(unit.lstrip("#")) if re.match(r"#+ ", unit) else 0
        if level:
            hidden = hidden if hidden and level > hidden else level if level > 1 and words.search(unit) else 0
        if hidden:
            continue
        following = next((each for each in units[number + 1 :] if each.strip()), "")
        announces = unit.rstrip().endswith(":") and following.startswith("```") and words.search(following)
        is_code = unit.startswith("```") and not unit.startswith("```mermaid")
        if is_code and (block := commands(unit, words)):
            kept.append(block)
        elif not words.search(unit):
            kept += [] if announces and not commands(following, words) else [unit]
        elif level:
            kept.append(unit)
        elif not unit.startswith(("```", "|", "    ")) and (rest := sentences(unit, words)) and not announces:
            kept.append(rest)
    return tidy("\n".join(kept))


def units_of(text: str) -> Iterator[str]:
    """Code blocks, rows, headings, blank lines, list items and paragraphs."""
    unit: list[str] = []
    fenced = False
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
            if fenced and unit:
                yield "\n".join(unit)
                unit = []
            unit.append(line)
            if not fenced:
                yield "\n".join(unit)
                unit = []
        elif fenced:
            unit.append(line)
        else:
            begins = not line.strip() or re.match(r"\s*(?:[-*] |\d+\. |\||#+ )", line)
            if unit and (begins or unit[0].startswith(("|", "#"))):
                yield "\n".join(unit)
                unit = []
            if line.strip():
                unit.append(line)
            else:
                yield line
    if unit:
        yield "\n".join(unit)


def commands(block: str, words: re.Pattern[str]) -> str:
    """A code block without its commands, which may go on over several lines, that have the words in them."""
    head, *lines, tail = block.split("\n")
    every = re.findall(r"(?:.*\\\n)*.*\n?", "\n".join(lines))
    rest = "".join(each for each in every if not words.search(each)).strip("\n")
    return f"{head}\n{rest}\n{tail}" if rest else ""


def sentences(unit: str, words: re.Pattern[str]) -> str:
    """The unit without its sentences that have the words in them."""
    start = re.match(r"\s*(?:[-*] |\d+\. )?", unit)
    indent = start[0] if start else ""
    every = re.split(r"(?<=[.!?])\s+(?=[A-Z`\[*(])", " ".join(unit[len(indent) :].split()))
    rest = " ".join(sentence for sentence in every if not words.search(sentence))
    later = " " * len(indent)
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(rest, WIDTH, initial_indent=indent, subsequent_indent=later, **options) if rest else ""


def tidy(text: str) -> str:
    """Without tables that have no row, headings that have nothing under them, and rows of blank lines."""
    text = re.sub(r"(?m)^\|.*\|\n\|[-| :]+\|\n(?!\|)", "", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    before = ""
    while text != before:
        before = text
        text = re.sub(r"(?m)^(#{2,}) .*\n+(?=(#+) |\Z)", lambda found: found[0] if is_below(found) else "", text)
    return text.strip("\n") + "\n"


def is_below(heading: re.Match[str]) -> bool:
    """Whether the next heading is of a section inside this one's."""
    return len(heading[2] or "") > len(heading[1])


# Other files


def entries(text: str, words: re.Pattern[str]) -> str:
    """JSON without the entries whose names have the words in them, and without such items of lists."""

    def pruned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: pruned(each) for name, each in value.items() if not words.search(name)}
        if isinstance(value, list):
            return [each for each in value if not words.search(json.dumps(each))]
        return value

    return json.dumps(pruned(json.loads(text)), indent=2, ensure_ascii=False) + "\n"


def targets(text: str, names: Collection[str]) -> str:
    """A Makefile without these targets."""
    pattern = "|".join(map(re.escape, names))
    text = re.sub(rf"(?m)^(?:{pattern}):.*\n(?:\t.*\n)*\n?", "", text)
    phony = re.search(r"(?m)^\.PHONY:(?:.*\\\n)*.*$", text)
    if not phony:
        return text
    left = [word for word in phony[0].replace("\\\n", " ").split() if word not in names]
    lines = textwrap.wrap(" ".join(left), 112, subsequent_indent=" " * 8, break_on_hyphens=False)
    return text.replace(phony[0], " \\\n".join(lines))
