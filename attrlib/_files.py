"""Files that appear whole or not at all, places that are tried before the work, digests of contents."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor

_NAME = 200  # bytes of a name; file systems allow 255, and parts are added to it


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a name in the same folder to write to; the file gets its own name at the end of the block.

    If the block raises, what was at `path` before stays as it was. The mode is that of any new file,
    whatever a library gives its own. What a killed process left half-written here is removed. Errors of
    the system name `path` and its reason.
    """
    partial = path.with_name(f".{_stem(path)}.{os.getpid()}.partial")
    with _about(path, partial):
        try:
            sweep(path.parent, path)
            partial.write_bytes(b"")
            mode = partial.stat().st_mode
            yield partial
            if partial.stat().st_mode != mode:
                partial.chmod(mode)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def sweep(folder: Path, path: Path | None = None) -> None:
    """Remove files that killed processes left half-written in a folder: those of one path, or all."""
    name = ".+" if path is None else re.escape(_stem(path))
    for entry in os.listdir(folder) if folder.is_dir() else ():
        found = re.fullmatch(rf"\.{name}\.(\d+)\.partial", entry, re.DOTALL)
        if found and _dead(int(found[1])):
            (folder / entry).unlink(missing_ok=True)


def ready(path: Path) -> None:
    """Make the folder of a file that will be written, and raise what would stop the writing."""
    if path.exists() and not path.is_file():
        raise ValueError(f"Expected {path} to be a file or new, got a folder or device")
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{_stem(path)}.{os.getpid()}.partial")
    with _about(path, trial):
        trial.write_bytes(b"")
        trial.unlink()


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep a place, made ready, for this run alone; another run that asks for it raises meanwhile.

    The system frees the place however the run ends. Folders that were made for it go again if nothing
    was written to them.
    """
    with ExitStack() as stack:
        made = list(takewhile(lambda folder: not folder.exists(), path.parents))
        for folder in reversed(made):
            stack.callback(_remove_empty, folder)  # the last one first
        ready(path)
        sweep(path.parent, path)
        lock = path.with_name(f".{_stem(path)}.lock")
        while True:
            file = stack.enter_context(lock.open("ab"))
            _hold(file.fileno(), path)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    break  # else the run before removed it between our two lines
        stack.callback(lock.unlink, missing_ok=True)
        yield


def shown(text: str) -> str:
    r"""A name as text for a table in UTF-8: bytes that are none become \xNN, a carriage return \r.

    Python's csv writes carriage returns without quotes, where lines end without them, and reads no such
    table.
    """
    return os.fsencode(text).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def short(text: str, *, limit: int = _NAME) -> str:
    """A name of at most so many bytes: if it is longer, its beginning and a digest of the whole."""
    raw = os.fsencode(text)
    if len(raw) <= limit:
        return text
    return raw[: limit - 9].decode("utf-8", "ignore") + "-" + digest(raw)[:8]


def digest(*parts: Tensor | bytes | str) -> str:
    """First 16 hex digits of the SHA-256 of tensors (their shapes and bits), bytes and texts."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            flat = part.detach().cpu().contiguous().reshape(-1)
            raw = flat.view(torch.uint8).numpy().tobytes()
            raw = f"{part.dtype} {tuple(part.shape)} ".encode() + raw
        else:
            raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()[:16]


@contextmanager
def _about(path: Path, partial: Path) -> Iterator[None]:
    """Let errors of the system speak of `path`, if they speak of its other name or of none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _stem(path: Path) -> str:
    return short(path.name)


def _hold(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on this system: runs are not kept apart
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"Expected {path} to be free, got another run that writes it now; "
            "wait for it or choose another place"
        ) from error
    except OSError:
        return  # a file system without locks


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _dead(process: int) -> bool:
    """Whether no process has this number on this machine; only systems that can say so without harm."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
