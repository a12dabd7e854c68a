"""The tree of errors that process/errors.py draws is the tree that the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from process import errors

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^([│├└─ ]+)(\w+)( \(.*?\))? +(\w+/[\w/.]+)?", re.MULTILINE)


def drawn() -> dict[str, tuple[str, str]]:
    """Name -> the name above it, and the file or folder that is given, if any."""
    found: dict[str, tuple[str, str]] = {}
    above = ["StreamGCNError"]
    for branches, name, _, place in LINE.findall(errors.__doc__ or ""):
        depth = len(branches) // 4
        found[name] = (above[depth - 1], place)
        above[depth:] = [name]
    return found


def defined() -> dict[str, tuple[str, str]]:
    """Name -> the first class that it is derived from, and the file, of all expected errors."""
    classes: dict[str, tuple[str, str]] = {}
    for room in ("process", "consumer", "trainer", "serving", "streamgcn"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef) and node.bases:
                    classes[node.name] = (ast.unparse(node.bases[0]), str(file.relative_to(ROOT)))
    expected = {"StreamGCNError"}
    while more := {name for name, (base, _) in classes.items() if base in expected} - expected:
        expected |= more
    return {name: at for name, at in classes.items() if name in expected - {"StreamGCNError"}}


def test_the_drawn_tree_of_errors_has_each_error_below_its_class_and_with_its_file() -> None:
    tree, code = drawn(), defined()
    assert {name: above for name, (above, _) in tree.items()} == {
        name: base for name, (base, _) in code.items()
    }
    assert [name for name, (_, place) in tree.items() if not code[name][1].startswith(place)] == []
