"""Weights from a server into the caches of torch.hub, huggingface_hub and iopath, by the code of these libraries."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import socket
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch

from ..common.errors import WeightsError
from ..common.files import write_whole
from ..common.text import nearest, some

SILENCE = 60  # seconds that a server may send nothing
# The file of a repository on the Hugging Face hub that names no other.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".th", ".pkl", ".npz")
FAILURES = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError)


def hub_file(*parts: str) -> Path:
    """Return a path in the cache of torch.hub."""
    return Path(torch.hub.get_dir(), "checkpoints", *parts)


def need(module: str, name: str) -> None:
    """Raise WeightsError where a library that `name` needs is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise WeightsError(f"{name}: needs {module}, which is not installed; run `pip install {module}`")


def from_torch_hub(name: str, url: str, target: Path, sha256: str = "") -> Path:
    """Return `target`, downloaded by torch.hub where it is not there yet.

    Args:
        name: what the user gave, for messages.
        sha256: the first digits of the file's hash, in lower case; "" for a file that is not checked.

    Raises:
        WeightsError: no network, no such file on the server, a download that was cut off, or another hash. Nothing is
            left of it.
        RunError: the cache cannot be written.
    """
    if target.is_file():
        if sha256 and not _digest(target).startswith(sha256):
            raise WeightsError(
                f"{name}: {target} has SHA-256 {_digest(target)}, not {sha256}; remove it, then try again"
            )
        return target

    def fill(temporary: Path) -> None:
        with _failing(name, url, target):
            size = _size(url)
            try:
                torch.hub.download_url_to_file(url, str(temporary), sha256 or None, progress=sys.stderr.isatty())
            except RuntimeError as error:
                raise WeightsError(f"{name}: not kept, {error}; it is another file, or it was cut off") from None
            _check_size(name, url, temporary, size, target)

    write_whole(target, fill)
    return target


def from_iopath(name: str, url: str) -> Path:
    """Return a file of iopath's cache, where detectron2 looks for it too; it is downloaded where it is not there yet.

    Raises:
        WeightsError: as in `from_torch_hub`.
    """
    need("iopath", name)
    from iopath.common.download import download
    from iopath.common.file_io import file_lock, get_cache_dir

    target = Path(get_cache_dir(), urlsplit(url).path.lstrip("/"))
    if not target.is_file():
        # It would print the failure that is raised below.
        logging.getLogger(download.__module__).addHandler(logging.NullHandler())
        with _failing(name, url, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(str(target)):
                download(url, str(target.parent), filename=target.name, progress=sys.stderr.isatty())
    return target


def from_hugging_face(name: str, repository: str, file: str = "", revision: str | None = None) -> Path:
    """Return a file of huggingface_hub's cache; it is downloaded where it is not there yet.

    Args:
        file: its path in the repository; "" for the first of HUB_FILES that is there.

    Raises:
        WeightsError: no network, or no such repository, revision or file.
    """
    need("huggingface_hub", name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    folder = f"{repository}@{revision}" if revision else repository
    place = hub_file("huggingface", *folder.split("/"), *(file or HUB_FILES[0]).split("/"))
    before = hub_logging.get_verbosity()
    # It would print a line for each of its attempts.
    hub_logging.set_verbosity_error()
    try:
        for wanted in (file,) if file else HUB_FILES:
            try:
                return Path(hf_hub_download(repository, wanted, revision=revision))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
        missing = f"{repository} has no {file or ' or '.join(HUB_FILES)}"
        raise WeightsError(f"{name}: {missing}{_others(repository, revision, file)}")
    except (HFValidationError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{name}: {_line(error)}; write hf:OWNER/REPOSITORY/FILE@REVISION") from None
    except RevisionNotFoundError:
        raise WeightsError(f"{name}: {repository} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise WeightsError(
            f"{name}: the hub has no repository {repository!r} that can be read without a login"
        ) from None
    except Exception as error:  # what its HTTP library raises differs by version
        if place.is_file():
            return place
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        reason = "HF_HUB_OFFLINE is set" if offline else f"it cannot be downloaded ({_line(error.__cause__ or error)})"
        raise WeightsError(f"{name}: not in the cache of huggingface_hub, and {reason}{by_hand(place)}") from None
    finally:
        hub_logging.set_verbosity(before)


def _others(repository: str, revision: str | None, file: str) -> str:
    """Return the end of a message that names the weights files of a repository, or the nearest to `file`."""
    from huggingface_hub import HfApi

    try:
        names = HfApi().list_repo_files(repository, revision=revision)
    except Exception:  # a help alone
        return ""
    files = [name for name in names if Path(name).suffix in HUB_SUFFIXES]
    if file:
        return nearest(file, files)
    return f"; name one of its files: {some(files)}" if files else ""


@contextlib.contextmanager
def _failing(name: str, url: str, target: Path) -> Iterator[None]:
    """Turn what a download can raise into a WeightsError, and give up on a server that sends nothing."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    except WeightsError:
        raise
    except urllib.error.HTTPError as error:
        reason = "the server has no such file" if error.code in (403, 404, 410) else "the server refuses"
        raise WeightsError(f"{name}: {reason} ({error.code}){_at(name, url)}{by_hand(target)}") from None
    except urllib.error.ContentTooShortError:
        raise WeightsError(
            f"{name}: the download was cut off, nothing is kept{_at(name, url)}{by_hand(target)}"
        ) from None
    except FAILURES as error:
        reason = _line(getattr(error, "reason", error))
        raise WeightsError(f"{name}: cannot be downloaded ({reason}){_at(name, url)}{by_hand(target)}") from None
    finally:
        socket.setdefaulttimeout(before)


def _at(name: str, url: str) -> str:
    return "" if url in name else f": {url}"


def by_hand(target: Path) -> str:
    """Return the end of a message: where a file may be put that cannot be downloaded here."""
    return f"; try again, or put the file at {target}"


def _size(url: str) -> int | None:
    """Return the bytes that the server promises; torch.hub does not compare them afterwards."""
    for method in ("HEAD", "GET"):  # not every server answers the first
        try:
            with urlopen(Request(url, headers={"User-Agent": "torch.hub"}, method=method)) as answer:
                length = answer.headers.get("Content-Length")
            return int(length) if length else None
        except (urllib.error.HTTPError, http.client.HTTPException, ConnectionError) as error:
            if method == "GET" or getattr(error, "code", None) in (404, 410):
                raise
    return None


def _check_size(name: str, url: str, file: Path, size: int | None, target: Path) -> None:
    found = file.stat().st_size
    if found == 0 or (size is not None and found != size):
        promised = f" of {size:,}" if size is not None else ""
        cut = f"the download was cut off after {found:,}{promised} bytes, nothing is kept"
        raise WeightsError(f"{name}: {cut}{_at(name, url)}{by_hand(target)}")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")
