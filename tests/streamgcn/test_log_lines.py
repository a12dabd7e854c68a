"""docs/operating.md explains each sentence that the code logs as WARNING or ERROR."""

import ast
import re
from collections.abc import Iterator

from tests.services import ROOT

FOLDERS = ("process", "consumer", "trainer", "serving", "streamgcn")
SAID_BY = {"warning", "error", "exception", "critical"}
VALUE = re.compile(r"%[-+.0-9]*[a-z]")


def text_of(node: ast.expr) -> str:
    """A sentence as it is written in the code, with … in the place of each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return VALUE.sub("…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            "…" if isinstance(v, ast.FormattedValue) else text_of(v) for v in node.values
        )
    return "…"


def sentences() -> Iterator[tuple[str, str]]:
    """Each with the place of its file and line; an outage's line is its beginning."""
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in SAID_BY and isinstance(node.func, ast.Attribute):
                yield text_of(node.args[0]), place
            elif name == "Outage" and len(node.args) > 1:
                yield text_of(node.args[1]), place


def test_each_warning_and_error_of_the_code_is_explained() -> None:
    documented = (ROOT / "docs" / "operating.md").read_text()
    found = list(sentences())
    assert len(found) > 30
    missing = [f"{place}: {text}" for text, place in found
               if text.strip("…. ") and f"`{text}`" not in documented]  # fmt: skip
    assert not missing, "explain these in docs/operating.md, Log lines:\n" + "\n".join(missing)


def test_no_sentence_is_explained_that_the_code_does_not_say() -> None:
    documented = (ROOT / "docs" / "operating.md").read_text()
    table = documented[documented.index("## Log lines") :].split("\n## ")[0]
    explained = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(explained) > 30
    assert set(explained) <= {text for text, _ in sentences()}
