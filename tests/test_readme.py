"""The two READMEs: what is typed, set or looked up is the same in English and in Chinese."""

import re

from tests.service import ROOT

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Code, a link's target, a variable's name, a figure: what no translation changes.
FACT = re.compile(r"(?<!`)`(?:[^`]+)`(?!`)|``.+?``|\]\((?!README)[^)]+\)|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|\d+(?:\.\d+)*")


def facts(text: str) -> set[str]:
    return {" ".join(fact.split()) for fact in FACT.findall(text)}


def sections(readme: str) -> list[str]:
    return re.split(r"^#{1,3} ", FENCED.sub("", readme), flags=re.MULTILINE)[1:]


def rows(text: str) -> list[list[str]]:
    return [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]


def variables(readme: str) -> list[list[str]]:
    return [row[:2] for row in rows(readme) if re.fullmatch(r" `[A-Z_]+`", row[0])]


def test_the_fenced_blocks_are_the_same_byte_for_byte() -> None:
    assert FENCED.findall(CHINESE) == FENCED.findall(ENGLISH) != []


def test_the_variables_and_their_defaults_are_the_same() -> None:
    assert variables(CHINESE) == variables(ENGLISH) != []


def test_the_tables_tell_of_the_same_things_cell_by_cell() -> None:
    english, chinese = ([[facts(cell) for cell in row] for row in rows(readme)] for readme in (ENGLISH, CHINESE))
    assert chinese == english


def test_each_section_tells_of_the_same_code_links_variables_and_figures() -> None:
    assert [facts(section) for section in sections(CHINESE)] == [facts(section) for section in sections(ENGLISH)]


def test_each_links_to_the_other_in_its_first_lines() -> None:
    assert "](README.zh-CN.md)" in ENGLISH[:100]
    assert "](README.md)" in CHINESE[:100]
