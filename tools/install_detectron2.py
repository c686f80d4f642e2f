#!/usr/bin/env python3
"""Install detectron2 into the environment of the interpreter that runs this script.

By default: the Python part of release 0.6, without a compiler. Faster and Mask R-CNN need no more, because RoIAlign,
RoIPool, NMS and deformable convolution come from torchvision. The package index holds that tree as the source archive
of `pb1-detectron2` 0.6 (it lacks the C++ sources, so it cannot be built as it is); pip fetches it, its SHA-256 is
checked, and its packages are laid into a wheel named detectron2 0.6.

With --from-source: the official repository with its compiled part; needs git, a C++ compiler, and for CUDA the toolkit
that fits the installed torch.

Example:
    python tools/install_detectron2.py
    python tools/install_detectron2.py --archive pb1-detectron2-0.6.tar.gz     # no network
    python tools/install_detectron2.py --from-source --ref main
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

ARCHIVE = "pb1-detectron2"
VERSION = "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
REPOSITORY = "https://github.com/facebookresearch/detectron2.git"
# The tested set, where there is a checkout. Elsewhere pip keeps what is installed, since REQUIRES names no versions.
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"

# What detectron2 imports at run time; its own list also names tools that only its export and its formatter use.
REQUIRES = (
    "Pillow",
    "matplotlib",
    "pycocotools",
    "termcolor",
    "yacs",
    "tabulate",
    "cloudpickle",
    "tqdm",
    "tensorboard",
    "fvcore",
    "iopath",
    "omegaconf",
    "hydra-core",
    "packaging",
)
# Where the archive's folders belong inside the installed package (the mapping of detectron2's own setup.py).
FOLDERS = {
    "detectron2/": "detectron2/",
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}


class InstallError(Exception):
    """The installation could not be done; the message says why and what to do."""


def installed_kind() -> str | None:
    """Return "python part", "with compiled part", or None when detectron2 is not there. Imports nothing of it."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return "with compiled part" if any(folder.glob("_C.*")) else "python part"


def pip(*arguments: str, extra_path: Path | None = None) -> None:
    """Run pip of this interpreter.

    Raises:
        InstallError: pip is missing or failed; its last lines are in the message.
    """
    if importlib.util.find_spec("pip") is None:
        raise InstallError(f"{sys.executable} has no pip: run `{sys.executable} -m ensurepip` first")
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    if extra_path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(extra_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        wanted = [line for line in lines if "error" in line.lower() or "hash" in line.lower()] or lines
        raise InstallError(f"pip {arguments[0]} failed: " + " | ".join(wanted[-4:]))


def pinned(constraints: Path | None) -> tuple[str, ...]:
    """Return the words for pip that pin the versions of what detectron2 needs; none without a file of them."""
    return () if constraints is None else ("--constraint", str(constraints))


def fetch_archive(folder: Path) -> Path:
    """Let pip fetch the archive into `folder`. pip checks the hash before anything of it is read."""
    if importlib.util.find_spec("torch") is None:
        raise InstallError("torch is not installed: run `pip install torch torchvision` first")
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{ARCHIVE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    # pip asks a source archive for its metadata even when it is only to be fetched, and this one's setup.py needs torch
    # (so: no build isolation) and a setuptools that knows bdist_wheel (so: one of its own, beside the environment's).
    build_tools = folder / "build_tools"
    pip("install", "--quiet", "--target", str(build_tools), "setuptools>=70.1,<82")
    pip(
        *("download", "--quiet", "--require-hashes", "--no-deps", "--no-build-isolation"),
        *("--no-binary", ARCHIVE, "--dest", str(folder), "--requirement", str(requirement)),
        extra_path=build_tools,
    )
    return folder / f"{ARCHIVE}-{VERSION}.tar.gz"


def check_hash(archive: Path) -> None:
    if not archive.is_file():
        raise InstallError(f"{archive}: no such file")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise InstallError(
            f"{archive}: SHA-256 is {found}, expected {SHA256}; this is not {ARCHIVE} {VERSION}, nothing was installed"
        )


def read_packages(archive: Path) -> dict[str, bytes]:
    """Return {path inside the wheel: content} of the archive's Python packages and their data files."""
    files: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            inner = PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
            for prefix, target in FOLDERS.items():
                if member.isfile() and inner.startswith(prefix) and ".." not in inner:
                    files[target + inner[len(prefix) :]] = tar.extractfile(member).read()
        licence = tar.extractfile(f"{ARCHIVE}-{VERSION}/LICENSE").read()
    files[f"detectron2-{VERSION}.dist-info/licenses/LICENSE"] = licence
    return files


def write_wheel(files: dict[str, bytes], folder: Path) -> Path:
    """Write `detectron2-0.6-py3-none-any.whl` holding `files`; return its path."""
    info = f"detectron2-{VERSION}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        f"Summary: Python part of detectron2 {VERSION}, without its compiled operators",
        "License: Apache-2.0",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {name}" for name in REQUIRES),
    ]
    wheel = ["Wheel-Version: 1.0", "Generator: install_detectron2", "Root-Is-Purelib: true", "Tag: py3-none-any"]
    content = dict(files)
    content[f"{info}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    content[f"{info}/WHEEL"] = ("\n".join(wheel) + "\n").encode()
    record = []
    for name, data in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}")
    record.append(f"{info}/RECORD,,")
    content[f"{info}/RECORD"] = ("\n".join(record) + "\n").encode()

    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in sorted(content):
            out.writestr(name, content[name])
    return path


def install_python_part(archive: Path | None, wheel_folder: Path | None, constraints: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="detectron2-") as temporary:
        folder = Path(temporary)
        if archive is None:
            archive = fetch_archive(folder)
        check_hash(archive)
        wheel = write_wheel(read_packages(archive), folder)
        if wheel_folder is not None:
            wheel_folder.mkdir(parents=True, exist_ok=True)
            print(f"wrote {shutil.copy(wheel, wheel_folder)}")
            return
        # A first call brings the dependencies, a second puts the package itself in place of another kind of it.
        pip("install", "--quiet", *pinned(constraints), str(wheel))
        pip("install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))


def install_from_source(ref: str, constraints: Path | None) -> None:
    for program in ("git", os.environ.get("CXX", "c++")):
        if shutil.which(program) is None:
            raise InstallError(
                f"--from-source needs `{program}`, which is not on the PATH; without it leave the flag out"
            )
    pip("install", "--quiet", *pinned(constraints), *REQUIRES, "setuptools>=70.1,<82", "wheel", "ninja")
    pip("install", "--no-build-isolation", "--no-deps", "--force-reinstall", f"git+{REPOSITORY}@{ref}")


def make_parser(description: str, project: str) -> argparse.ArgumentParser:
    """Return the parser of a command that installs a project, with the flag for its constraints."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--constraint",
        type=Path,
        default=CONSTRAINTS if CONSTRAINTS.is_file() else None,
        metavar="FILE",
        help=f"versions of what {project} needs",
    )
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message} (--help shows the usage)\n")
    return parser


def main() -> int:
    parser = make_parser(__doc__, "detectron2")
    parser.add_argument("--from-source", action="store_true", help="build the official repository, compiled part too")
    parser.add_argument("--ref", default="main", help="branch, tag or commit for --from-source (default: main)")
    parser.add_argument("--archive", type=Path, help=f"a {ARCHIVE}-{VERSION}.tar.gz you already have")
    parser.add_argument("--wheel", type=Path, metavar="DIR", help="write the wheel into DIR and install nothing")
    parser.add_argument("--force", action="store_true", help="install even if detectron2 is already there")
    arguments = parser.parse_args()

    kind = installed_kind()
    if kind is not None and not arguments.force and arguments.wheel is None:
        print(f"detectron2 is already installed ({kind}); --force installs it anew")
        return 0
    try:
        if arguments.from_source:
            install_from_source(arguments.ref, arguments.constraint)
        else:
            install_python_part(arguments.archive, arguments.wheel, arguments.constraint)
    except (InstallError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    if arguments.wheel is None:
        importlib.invalidate_caches()
        print(f"detectron2 installed ({installed_kind()})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
