"""Files and folders that operating systems and tools leave behind in folders of images."""

from __future__ import annotations

_FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)
_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "folder.jpg.db", "picasa.ini"})


def is_hidden(name: str) -> bool:
    """Whether a name begins with a dot."""
    return name.startswith(".")


def is_junk(name: str, *, folder: bool) -> bool:
    """Whether a file or folder of this name is left behind by a system (of macOS, Windows, a NAS) and no one's data."""
    return name.casefold() in (_FOLDERS if folder else _FILES)
