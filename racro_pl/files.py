"""How this program writes files: whole or not at all, with the modes that docs/files.md states.

Files that hold rows of the user's data, a configuration or a server's output are for their owner alone (0600): data
sets may be confidential, and a configuration names servers and paths. Everything else (weights, metrics, pictures of
metrics, tables of scores) has the mode that the user's umask gives to new files, whatever library wrote it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from racro_pl.types import RacroError


def private(path: str, flags: int) -> int:
    """An ``opener`` for :func:`open`: a file that it creates is its owner's alone (0600)."""
    return os.open(path, flags, 0o600)


def write_atomically(path: Path, content: str | bytes, *, owner_only: bool = False) -> None:
    """Write a file in one go: a process that is killed meanwhile leaves the old one, or none.

    Several processes may write the same file at once; it is one of theirs then.

    Args:
        path: the file; its folder must be there.
        content: text (UTF-8; what UTF-8 cannot hold becomes a question mark) or bytes.
        owner_only: mode 0600 instead of the umask's.

    Raises:
        OSError: it cannot be written; then nothing is left of it, and an earlier file is as it was.
    """
    # A name that no other process writes to.
    partial = partial_path(path.with_name(f"{path.name}.{secrets.token_hex(4)}"))
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    try:
        with open(partial, "wb", opener=private if owner_only else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def partial_path(path: Path) -> Path:
    """The hidden name under which a file or folder is written until it is whole."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name ``target`` when it is filled and on the disk; after an error it goes.

    Its files get the umask's mode. An earlier folder of the name is replaced.
    """
    folder = partial_path(target)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
        follow_umask(folder)
        for path in (*folder.rglob("*"), folder):
            sync(path)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    replace_folder(folder, target)


def replace_folder(new: Path, old: Path) -> None:
    """No call replaces a folder that has content: for a moment the name is free (see ``clear_leftovers``)."""
    moved = old.with_name(f".{old.name}.old")
    shutil.rmtree(moved, ignore_errors=True)
    if old.exists():
        old.replace(moved)
    new.replace(old)
    shutil.rmtree(moved, ignore_errors=True)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before continuing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_private(path: Path, lines: Iterable[str]) -> None:
    """Append lines to a file of its owner alone, which is created where it is missing, with its folder.

    What UTF-8 cannot hold (half a character in a model's text) becomes a question mark.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", errors="replace", opener=private) as file:
        file.write("".join(f"{line}\n" for line in lines))


def follow_umask(folder: Path) -> None:
    """Give every file below ``folder`` the mode that new files get there.

    Libraries that write under a temporary name first (safetensors) leave files that their owner alone can read.
    """
    probe = folder / f".mode-{os.getpid()}"
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BLOCKED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def place_error(error: OSError) -> RacroError | None:
    """One line about a file or folder that cannot be used: no permission, read-only, full, blocked; None for others."""
    if error.errno in _FULL:
        what, advice = "write", "free some space"
    elif error.errno in _BLOCKED and error.filename is not None:
        what, advice = "use", "choose another place, or change what is there"
    else:
        return None
    where = "" if error.filename is None else f" {os.fsdecode(error.filename)}"
    return RacroError(f"cannot {what}{where}: {error.strerror}; {advice}")
