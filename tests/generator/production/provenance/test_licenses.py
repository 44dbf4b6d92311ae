"""Licenses: SPDX identifiers, identifiers of the hub, URLs, and names that neither knows."""

from __future__ import annotations

from typing import Any

import pytest

from generator.production.provenance.licenses import hub_license, license_url


@pytest.mark.parametrize(
    ("stated", "url"),
    [
        ("CC-BY-4.0", "https://spdx.org/licenses/CC-BY-4.0.html"),
        ("cc-by-4.0", "https://spdx.org/licenses/CC-BY-4.0.html"),
        ("odbl", "https://spdx.org/licenses/ODbL-1.0.html"),
        ("https://example.org/terms", "https://example.org/terms"),
        ("Our house license", None),
        ("unknown", None),
    ],
)
def test_the_url_of_a_license(stated: str, url: str | None) -> None:
    assert license_url(stated) == url


@pytest.mark.parametrize(
    ("stated", "front"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("ODbL-1.0", {"license": "odbl"}),
        ("unknown", {"license": "unknown"}),
        ("Our house license", {"license": "other", "license_name": "our-house-license"}),
        (
            "https://example.org/terms",
            {"license": "other", "license_name": "example.org-terms", "license_link": "https://example.org/terms"},
        ),
        ("猫", {"license": "other", "license_name": "other"}),
    ],
)
def test_the_front_matter_of_a_license(stated: str, front: dict[str, Any]) -> None:
    assert hub_license(stated) == front
