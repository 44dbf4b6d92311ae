"""What a user writes, what it refers to, and how it becomes a JobSpec. Imports torch only to encode an image."""

from generator.drafts.draft import (
    JobDraft,
    check_fits,
    draft_of,
    find_bundle,
    read_bytes,
    read_draft,
    read_mapping,
    resolve,
)

__all__ = ["JobDraft", "check_fits", "draft_of", "find_bundle", "read_bytes", "read_draft", "read_mapping", "resolve"]
