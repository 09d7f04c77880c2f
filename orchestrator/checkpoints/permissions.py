"""Permissions of written checkpoints: safetensors writes its files for the owner alone."""

from pathlib import Path

_READABLE = 0o666  # permission bits that a file takes from its folder


def share_like_folder(folder: Path) -> None:
    """Give the files of a folder the permissions of their folders, which follow the umask."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(file.parent.stat().st_mode & _READABLE)
