"""Weights by name or URL: from what the user gave to a file on this disk.

    torchvision:resnet50, torchvision:resnet50:IMAGENET1K_V1     torchvision's enums; without one its default
    timm:resnet50.a1_in1k                                        timm's pretrained configs
    hf:OWNER/REPOSITORY, hf:OWNER/REPOSITORY/FILE@REVISION       the Hugging Face hub
    detectron2://ImageNetPretrained/MSRA/R-101.pkl               what detectron2's path manager takes
    detectron2:COCO-Detection/faster_rcnn_R_50_FPN_3x            detectron2's model zoo
    openmmlab:detectron2/resnet50_caffe                          the tables of MMEngine
    https://HOST/FILE, https://HOST/FILE#sha256=DIGITS

A path that exists wins over a name.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from torch import Tensor

from ..common.errors import WeightsError
from ..common.preprocessing import Preprocessing
from ..common.text import nearest
from . import zoos
from .downloads import from_hugging_face, from_iopath, from_torch_hub, hub_file
from .weight_metadata import WeightMetadata

HASH = re.compile(r"[0-9a-f]{8,64}")
LOCAL = ("localhost", "127.0.0.1", "::1")
# Names that were resolved in this process. A weights file is asked for more than once, and the hub each time.
_found: dict[str, Path] = {}


def resolve(source: str | Path) -> Path:
    """Return the file that a path, a name or a URL stands for; it is downloaded where the caches do not have it.

    A path that exists wins; so does a text that looks like no name, whether it exists or not.

    Raises:
        WeightsError: an unknown name, or a download that failed; it says where the file may be put by hand.
        RunError: the cache cannot be written.
    """
    if _exists(source):
        return Path(source)
    name = as_given(source)
    scheme, handler = _scheme(name)
    if handler is None:
        return Path(source)
    known = _found.get(name)
    if known is None or not known.is_file():
        rest = name if scheme in ("http", "https") else name[len(scheme) + 1 :]
        _found[name] = known = handler(name, rest)
    return known


def _exists(source: str | Path) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # a URL may be longer than any file's name
        return False


def is_name(source: str | Path) -> bool:
    """Whether a text is a name or a URL, and not a path."""
    return not _exists(source) and _scheme(as_given(source), strict=False)[1] is not None


def metadata_by_name(source: str | Path, tensors: Mapping[str, Tensor]) -> WeightMetadata:
    """Return what torchvision's and timm's tables know of weights that were asked for by name.

    Their bottlenecks have their stride in the 3x3 convolution; their files do not say so.
    """
    if not is_name(source):
        return WeightMetadata()
    scheme, _, rest = as_given(source).partition(":")
    if scheme == "torchvision":
        model, _, tag = rest.partition(":")
        transform = zoos.torchvision_weights("", model, tag).transforms()
        mean, std = getattr(transform, "mean", None), getattr(transform, "std", None)
    elif scheme == "timm":
        config = zoos.timm_config("", rest)
        mean, std = config.mean, config.std
    else:
        return WeightMetadata()
    known = Preprocessing("RGB", 1, tuple(mean), tuple(std)) if mean and std else None
    return WeightMetadata(preprocessing=known, stride_in_1x1=False if "layer1.0.conv3.weight" in tensors else None)


def as_given(source: str | Path) -> str:
    """Return a name as it was typed; a Path has taken one of its two slashes away."""
    return re.sub(r"^(https?|detectron2):/(?=[^/])", r"\1://", str(source)) if isinstance(source, Path) else source


def _scheme(name: str, *, strict: bool = True) -> tuple[str, Callable[[str, str], Path] | None]:
    """Return what stands before the colon and its function; None for a path.

    Raises:
        WeightsError: with `strict`, what stands before the colon is misspelt, or the source is none of ours.
    """
    match = re.match(r"([A-Za-z][\w+.-]*):", name)
    if match is None:
        if strict and name in zoos.torchvision_names():
            raise WeightsError(f"{name}: no such weights file; did you mean 'torchvision:{name}'?")
        return "", None
    scheme = match[1]
    if scheme in SCHEMES:
        return scheme, SCHEMES[scheme]
    wrong = "://" in name or difflib.get_close_matches(scheme.lower(), SCHEMES, n=1, cutoff=0.6)
    if strict and wrong:
        raise WeightsError(
            f"{name}: no such file, and no source of weights is called {scheme!r}{nearest(scheme, SCHEMES)}"
        )
    return "", None


def _torchvision(name: str, rest: str) -> Path:
    model, _, tag = rest.partition(":")
    url = zoos.torchvision_weights(name, model, tag).url
    file = url.rpartition("/")[2]
    hashed = re.search(r"-([0-9a-f]{8,})\.", file)
    return from_torch_hub(name, url, hub_file(file), hashed[1] if hashed else "")


def _timm(name: str, rest: str) -> Path:
    config = zoos.timm_config(name, rest)
    if config.hf_hub_id:
        return from_hugging_face(name, config.hf_hub_id, config.hf_hub_filename or "")
    if not config.url:
        raise WeightsError(f"{name}: timm has no file for it")
    return from_torch_hub(name, config.url, hub_file(config.url.rpartition("/")[2]))


def _hugging_face(name: str, rest: str) -> Path:
    rest, _, revision = rest.partition("@")
    owner, _, rest = rest.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise WeightsError(f"{name}: write hf:OWNER/REPOSITORY, hf:OWNER/REPOSITORY/FILE or either with @REVISION")
    return from_hugging_face(name, f"{owner}/{repository}", file, revision or None)


def _detectron2(name: str, rest: str) -> Path:
    if rest.startswith("//"):
        if ".." in rest.split("/"):
            raise WeightsError(f"{name}: write the path of a file on detectron2's server, without '..'")
        url = zoos.DETECTRON2_SERVER + rest[2:]
        try:
            return from_iopath(name, url)
        except WeightsError as error:
            if "no such file" not in str(error):
                raise
            known = zoos.detectron2_files()
            raise WeightsError(f"{error}{nearest(name, known) if known else ''}") from None
    return from_iopath(name, zoos.detectron2_url(name, rest))


def _openmmlab(name: str, rest: str) -> Path:
    url = zoos.openmmlab_url(name, rest.removeprefix("//"))
    return from_torch_hub(name, url, hub_file(url.rpartition("/")[2]))


def _url(name: str, rest: str) -> Path:
    url, _, fragment = rest.partition("#")
    wanted = fragment.removeprefix("sha256=").lower()
    if fragment and not (fragment.startswith("sha256=") and HASH.fullmatch(wanted)):
        raise WeightsError(f"{name}: write #sha256= and 8 to 64 hexadecimal digits behind the URL, not #{fragment}")
    try:
        parts = urlsplit(url)
        host, port, path = parts.hostname, parts.port, Path(unquote(parts.path))
    except ValueError as error:  # brackets of no address, or a port that is no number
        raise WeightsError(f"{name}: not a URL, {error}; write https://HOST/FOLDER/FILE") from None
    # The name of a file in the cache is made of them.
    if not host or not host.strip(".") or path.name in ("", "..") or "\0" in str(path):
        raise WeightsError(f"{name}: not the URL of a file; write https://HOST/FOLDER/FILE")
    if parts.scheme == "http" and host not in LOCAL and not wanted:
        raise WeightsError(f"{name}: anyone on the way can change what http brings; write https, or add #sha256=DIGITS")
    # Many servers have files of the same name: the folders stay, as in iopath's cache.
    folders = [part for part in path.parent.parts if part not in ("/", "//", "..")]
    query = hashlib.sha256(parts.query.encode()).hexdigest()[:8] if parts.query else ""
    place = (host if port is None else f"{host}_{port}", *folders, *filter(None, [query]), path.name)
    return from_torch_hub(name, url, hub_file(*place), wanted)


SCHEMES: dict[str, Callable[[str, str], Path]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _hugging_face,
    "detectron2": _detectron2,
    "openmmlab": _openmmlab,
    "open-mmlab": _openmmlab,
    "https": _url,
    "http": _url,
}
