"""The reading examples of README.md and docs/reading.md, each run as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from serving.redis.contract import Recommendations
from serving.redis.store import Store
from streamgcn.services.redis import redis_command
from tests.services import ROOT, real_redis

DOCS = [(ROOT / name).read_text() for name in ("README.md", "docs/reading.md")]
BINARIES = Path(redis_command(0)[0]).parent  # redis-cli is beside redis-server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis with a list of u1, one of ü 2, and a popular one."""
    with real_redis(tmp_path_factory.mktemp("redis")) as url:
        store = Store(url, "streamgcn")
        value = Recommendations(["i1", "ü"], [0.5, 0.25], ["o", "o"], "v", "live", 1, 2)
        store.put_users(["u1", "ü 2"], [msgspec.json.encode(value)] * 2)
        store.put_popular(
            msgspec.json.encode(Recommendations(["hit"], [3.0], [], "v", "popular", 1, 2))
        )
        store.close()
        yield url


def example(language: str, folder: Path, name: str) -> Path:
    found = [re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for text in DOCS]
    [code] = [code for codes in found for code in codes]
    assert len(code.strip().splitlines()) <= 10
    path = folder / name
    path.write_text(code)
    return path


def answers(command: list[str], url: str, folder: Path) -> list[str]:
    """What the example prints for a user with a list, one with a strange id, and a stranger."""
    path = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"REDIS_URL": url, "PATH": path}
    return [
        subprocess.run(
            [*command, user], env=env, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()
        for user in ("u1", "ü 2", "stranger")
    ]


def test_the_example_for_redis_cli_reads_a_list_or_the_popular_one(
    url: str, tmp_path: Path
) -> None:
    if not (shutil.which("redis-cli") or (BINARIES / "redis-cli").exists()):
        pytest.skip("there is no redis-cli")
    found = answers(["sh", str(example("sh", tmp_path, "read.sh"))], url, tmp_path)
    items = [msgspec.json.decode(each, type=Recommendations).items for each in found]
    assert items == [["i1", "ü"], ["i1", "ü"], ["hit"]]


def test_the_example_for_python_reads_a_list_or_the_popular_one(url: str, tmp_path: Path) -> None:
    found = answers([sys.executable, str(example("python", tmp_path, "read.py"))], url, tmp_path)
    assert found == ["i1 0.5 live\nü 0.25 live"] * 2 + ["hit 3.0 popular"]


def test_the_readme_has_fewer_than_200_lines() -> None:
    assert len(DOCS[0].splitlines()) < 200


@pytest.mark.long  # npm installs a client
def test_the_example_for_node_reads_a_list_or_the_popular_one(url: str, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("there is no node or no npm")
    installed = subprocess.run(
        [npm, "install", "--silent", "--fetch-retries=0", "redis"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install redis: {installed.stderr or installed.stdout}")
    found = answers([node, str(example("js", tmp_path, "read.mjs"))], url, tmp_path)
    assert found == ["i1 0.5 live\nü 0.25 live"] * 2 + ["hit 3 popular"]
