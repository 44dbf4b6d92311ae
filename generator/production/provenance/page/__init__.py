"""The page of a build: ``index.html``, which shows gallery, counts and facts from a folder, a bucket or ``file://``.

One file with all of its data and no script. Its content security policy allows images that are embedded in it and its
own style sheet, and nothing else.
"""

from generator.production.provenance.page.document import MAX_PAGE_BYTES, page_bytes
from generator.production.provenance.page.pictures import PageSample, choose_samples

__all__ = ["MAX_PAGE_BYTES", "PageSample", "choose_samples", "page_bytes"]
