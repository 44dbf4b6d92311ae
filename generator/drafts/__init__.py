"""Job drafts, the references in them, and their resolution to a JobSpec. Imports torch only to encode an image."""

from generator.drafts.draft import (
    JobDraft,
    check_bundle_fits,
    find_bundle,
    parse_draft,
    parse_mapping,
    read_draft,
    read_yaml_file,
    resolve_draft,
)
from generator.drafts.references import check_named_codes

__all__ = [
    "JobDraft",
    "check_bundle_fits",
    "check_named_codes",
    "parse_draft",
    "find_bundle",
    "read_yaml_file",
    "read_draft",
    "parse_mapping",
    "resolve_draft",
]
