"""Licenses as others name them: the URL of the SPDX license list, and the identifiers of the Hugging Face hub.

https://spdx.org/licenses, https://huggingface.co/docs/hub/repositories-licenses.
"""

from __future__ import annotations

import re
from typing import Any

_SPDX = (
    *(
        "Apache-2.0",
        "MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "GPL-2.0-only",
        "GPL-3.0-only",
        "AGPL-3.0-only",
        "Unlicense",
    ),
    *("CC0-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    *("CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0"),
    *("CC-BY-NC-SA-4.0", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "PDDL-1.0", "ODbL-1.0", "ODC-By-1.0"),
    *("CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0"),
)
_SPDX_BY_LOWER = {name.lower(): name for name in _SPDX}
_HUB_NAMES = {  # where the hub's identifier is not SPDX's in lower case
    "gpl-2.0-only": "gpl-2.0",
    "gpl-3.0-only": "gpl-3.0",
    "agpl-3.0-only": "agpl-3.0",
    "pddl-1.0": "pddl",
    "odbl-1.0": "odbl",
    "odc-by-1.0": "odc-by",
}
_HUB = {_HUB_NAMES.get(name, name) for name in _SPDX_BY_LOWER} | {"unknown", "other", "openrail", "cc"}
_SPDX_OF_HUB = {hub: name for name, hub in _HUB_NAMES.items()}


def license_url(stated: str) -> str | None:
    """``stated`` itself if it is a URL, the page of a license that SPDX lists, or ``None``."""
    if is_web_address(stated):
        return stated
    lower = stated.lower()
    spdx = _SPDX_BY_LOWER.get(_SPDX_OF_HUB.get(lower, lower))
    return None if spdx is None else f"https://spdx.org/licenses/{spdx}.html"


def hub_license(stated: str) -> dict[str, Any]:
    """The front matter of a card that states a license: one that the hub knows, or ``other`` with name and link."""
    lower = stated.lower()
    known = _HUB_NAMES.get(lower, lower)
    if known in _HUB:
        return {"license": known}
    name = re.sub(r"[^a-z0-9.]+", "-", lower.removeprefix("https://").removeprefix("http://")).strip("-")
    link = {"license_link": stated} if is_web_address(stated) else {}
    return {"license": "other", "license_name": name or "other", **link}


def is_web_address(text: str) -> bool:
    """Whether ``text`` is a URL of the web, without white space."""
    return re.fullmatch(r"https?://[^\s<>\"]+", text) is not None
