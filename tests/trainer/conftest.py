"""A MODEL_STORE of each kind: a test that takes `model_store` runs on both."""

from pathlib import Path

import pytest

from tests.s3 import S3


@pytest.fixture(params=["folder", "s3"])
def model_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A folder, or a place in a new bucket, with the environment that its client needs."""
    if request.param == "folder":
        (tmp_path / "models").mkdir()
        return str(tmp_path / "models")
    return bucket_of(request.getfixturevalue("s3"), monkeypatch)


@pytest.fixture
def s3_store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a new bucket."""
    return bucket_of(s3, monkeypatch)


def bucket_of(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket()}/shop/models"
