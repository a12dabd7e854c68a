"""A MODEL_STORE of each kind: a test that takes `model_store` runs on all of them."""

from pathlib import Path

import pytest


@pytest.fixture(params=["folder"])
def model_store(tmp_path: Path) -> str:
    (tmp_path / "models").mkdir()
    return str(tmp_path / "models")
