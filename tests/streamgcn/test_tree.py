"""The tree of files is as DESIGN.md draws it, and each file stays as short as its job."""

import ast
import re

from tests.services import ROOT

LINES = 250  # of a file that gives no reason for more
REASON = "This file is longer than 250 lines because "
ROOMS = ("process", "consumer", "trainer", "serving", "streamgcn")


def test_the_map_of_the_design_names_every_folder_of_the_rooms() -> None:
    named = re.findall(r"^ {4,6}([a-z]+)/ ", (ROOT / "DESIGN.md").read_text(), re.M)
    found = [
        folder.parent.name for room in ROOMS for folder in (ROOT / room).glob("**/__init__.py")
    ]
    assert sorted(set(named) - {"tests", "docs"}) == sorted(found)


def test_a_file_of_more_than_250_lines_says_why_in_its_docstring() -> None:
    too_long = []
    for folder in (*ROOMS, "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            reason = REASON in " ".join((ast.get_docstring(ast.parse(text)) or "").split())
            if (len(text.splitlines()) > LINES) != reason:
                too_long.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
    assert not too_long, f"split these files, or begin a sentence of the docstring with: {REASON}"
