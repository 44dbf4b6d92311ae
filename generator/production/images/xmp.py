"""The XMP packet that marks an image as synthetic with IPTC's digital source type.

IPTC, "Digital Source Type" NewsCodes: ``trainedAlgorithmicMedia`` is media created by a model trained on sampled
content. The packet names the recipe version, not the release, because it is part of the reproducible bytes of a build.
IPTC Photo Metadata Standard 2025.1: ``AISystemUsed`` and ``AISystemVersionUsed`` name the system and, as its version,
recipe version and build id, by which an image that is found anywhere can be traced.
"""

from __future__ import annotations

import io
import re

from PIL import Image

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/">\
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
xmp:CreatorTool="latentmill recipe_version {version}" \
Iptc4xmpExt:DigitalSourceType="{source_type}"{system}/>\
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""


_SYSTEM_TEMPLATE = """ \
Iptc4xmpExt:AISystemUsed="latentmill" \
Iptc4xmpExt:AISystemVersionUsed="recipe_version {version}, build {build_id}\""""
_BUILD = re.compile(r"recipe_version [0-9]+, build ([0-9a-f]{20})(?![0-9a-f])")


def xmp_packet(recipe_version: int, build_id: str | None = None) -> bytes:
    """The XMP packet that marks an image as made by a trained model, UTF-8; ``build_id``: the build that it names."""
    system = "" if build_id is None else _SYSTEM_TEMPLATE.format(version=recipe_version, build_id=build_id)
    return _XMP_TEMPLATE.format(version=recipe_version, source_type=SOURCE_TYPE, system=system).encode()


def is_marked_synthetic(data: bytes) -> bool:
    """Whether an encoded image carries IPTC's ``trainedAlgorithmicMedia`` in its XMP packet."""
    return SOURCE_TYPE in _read_packet(data)


def marked_build(data: bytes) -> str | None:
    """The id of the build that the mark of an encoded image names; ``None`` without one."""
    found = _BUILD.search(_read_packet(data))
    return None if found is None else found[1]


def _read_packet(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return packet if isinstance(packet, str) else packet.decode("utf-8", "replace")
