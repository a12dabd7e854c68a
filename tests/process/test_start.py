"""What a process imports at its start, which is most of the time until it is at work."""

import subprocess
import sys

import pytest

LOOPS = [
    ("streamgcn.cli.main", ("torch", "scipy")),
    ("consumer.ingest.loop", ("torch", "redis", "duckdb")),
    pytest.param(
        "trainer.retrain", ("torch_geometric", "torch._dynamo", "redis", "duckdb"),
        marks=pytest.mark.long,
    ),
    pytest.param(
        "serving.serve", ("torch_geometric", "torch._dynamo", "duckdb"), marks=pytest.mark.long
    ),
]  # fmt: skip


@pytest.mark.parametrize(("loop", "slow"), LOOPS)
def test_a_process_imports_no_slow_library_that_it_does_not_need(
    loop: str, slow: tuple[str, ...]
) -> None:
    program = f"import {loop}, sys; print(*(name for name in {slow!r} if name in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, ""), ended.stderr
