"""The XMP packet that marks an image as synthetic with IPTC's digital source type.

IPTC, "Digital Source Type" NewsCodes: ``trainedAlgorithmicMedia`` is media created by a model trained on sampled
content. The packet names the recipe version, not the release, because it is part of the reproducible bytes of a build.
"""

from __future__ import annotations

import io

from PIL import Image

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\
<x:xmpmeta xmlns:x="adobe:ns:meta/">\
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" \
xmp:CreatorTool="latentmill recipe_version {version}" \
Iptc4xmpExt:DigitalSourceType="{source_type}"/>\
</rdf:RDF></x:xmpmeta><?xpacket end="r"?>"""


def xmp_packet(recipe_version: int) -> bytes:
    """The XMP packet that marks an image as made by a trained model, UTF-8."""
    return _XMP_TEMPLATE.format(version=recipe_version, source_type=SOURCE_TYPE).encode()


def is_marked_synthetic(data: bytes) -> bool:
    """Whether an encoded image carries IPTC's ``trainedAlgorithmicMedia`` in its XMP packet."""
    with Image.open(io.BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = packet if isinstance(packet, str) else packet.decode("utf-8", "replace")
    return SOURCE_TYPE in text
