"""A pytest plugin: ``-p generator.testing.plugin --store-url URL`` gives tests the fixture ``store`` below that URL.

It is not registered as an entry point, so other runs of pytest do not load it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from generator.store import S3Settings, Store, open_store
from generator.testing.temporary_prefix import temporary_prefix


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--store-url``."""
    group = parser.getgroup("latentmill")
    group.addoption(
        "--store-url", metavar="URL", help="Test the store at URL: s3://bucket/prefix, a path, memory://name."
    )


@pytest.fixture(scope="session")
def store_s3_settings() -> S3Settings:
    """How S3 is reached: by default boto3's own chain (``AWS_ENDPOINT_URL``, ``AWS_PROFILE``). To be overridden."""
    return S3Settings()


@pytest.fixture
def store(request: pytest.FixtureRequest, store_s3_settings: S3Settings) -> Iterator[Store]:
    """An empty store below a random prefix of ``--store-url``; the prefix is removed after the test."""
    url = request.config.getoption("--store-url")
    if url is None:
        pytest.fail("no store to test: give --store-url URL, or define a fixture `store`", pytrace=False)
    with temporary_prefix(open_store(url, store_s3_settings)) as below:
        yield below
