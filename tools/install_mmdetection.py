#!/usr/bin/env python3
"""Install MMDetection into the environment of the interpreter that runs this script, without a compiler.

The tests compare with it; nothing else needs it. pip builds the source archives of its fork that runs on today's torch,
whose SHA-256 are checked, and adds what they import. No package that is there is touched. The compiled operators are
left out: a module in their place takes NMS and RoIAlign from torchvision, and says so when another one is called.

Example:
    python tools/install_mmdetection.py
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from install_detectron2 import InstallError, make_parser, pinned, pip

# Import name -> name, version and SHA-256 of its source archive.
ARCHIVES = {
    "mmengine": ("onedl-mmengine", "0.10.12", "48ad9961f86f3e6961efd0e06073783466db3401c0d1e1ddb2b20f702473c821"),
    "mmcv": ("onedl-mmcv", "2.3.6", "8704978a3d492b15cc058742ac3165bd1bcc2dd20678da9ed39e0da3048e3045"),
    "mmdet": ("onedl-mmdetection", "3.5.1", "2cd7fae8f74f644dd7a1f71cebc2cf531c330c6e027ffada46ee3d34ba7642dc"),
}
# What these import, of what detectron2 and this project do not bring.
REQUIRES = ("addict", "platformdirs", "shapely", "six", "terminaltables", "yapf")
OPERATORS = '''\
"""In place of MMCV's compiled operators: those of torchvision. Written by tools/install_mmdetection.py."""

from torchvision import ops


def nms(boxes, scores, iou_threshold, offset):
    if offset:
        raise NotImplementedError("torchvision's NMS has no offset of a pixel")
    return ops.nms(boxes, scores, iou_threshold)


def roi_align_forward(
    input, rois, output, argmax_y, argmax_x, aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode,
    aligned,
):
    if pool_mode != 1:
        raise NotImplementedError("torchvision's RoIAlign takes the mean only")
    size = (aligned_height, aligned_width)
    output.copy_(ops.roi_align(input, rois, size, spatial_scale, sampling_ratio, aligned))


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*arguments, **keywords):
        raise NotImplementedError(f"MMCV's {name} is not compiled here")

    return missing
'''


def is_there(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    # A folder that an uninstalled package left behind has no file of its own.
    return spec is not None and spec.origin is not None


def install(constraints: Path | None) -> None:
    """Install what is missing.

    Raises:
        InstallError: pip failed; a package that it began is not left half.
    """
    needed = [name for name in REQUIRES if not is_there(name)]
    if needed:
        pip("install", "--quiet", "--no-deps", *pinned(constraints), *needed)
    missing = [archive for name, archive in ARCHIVES.items() if not is_there(name)]
    if missing:
        # Without torch in the isolated build, MMCV leaves its operators out; the variable says the same to its kin.
        os.environ["MMCV_WITH_OPS"] = "0"
        with tempfile.TemporaryDirectory(prefix="mmdetection-") as folder:
            requirements = Path(folder) / "requirements.txt"
            lines = [f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in missing]
            requirements.write_text("".join(lines), encoding="utf-8")
            sources = ",".join(name for name, *_ in missing)
            pip("install", "--quiet", "--no-deps", "--no-binary", sources, "--requirement", str(requirements))
        importlib.invalidate_caches()


def write_operators() -> None:
    """Write the module in place of the operators, if MMCV has none."""
    folder = Path(importlib.util.find_spec("mmcv").submodule_search_locations[0])
    if not [path for path in folder.glob("_ext.*") if path.suffix != ".py"]:
        (folder / "_ext.py").write_text(OPERATORS, encoding="utf-8")


def main() -> int:
    parser = make_parser(__doc__, "MMDetection")
    arguments = parser.parse_args()
    try:
        install(arguments.constraint)
        write_operators()
    except (InstallError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print("MMDetection is installed, without its compiled operators")
    return 0


if __name__ == "__main__":
    sys.exit(main())
