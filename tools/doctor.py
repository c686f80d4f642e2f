#!/usr/bin/env python3
"""Check the environment: each line is ok, or says how to mend it. Needs nothing but Python itself.

Example:
    python tools/doctor.py --data-root /data
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

OK, WARN, BAD = "ok", "warn", "MEND"
# Named here and not by `backbone`, which may be what is missing.
INSTALLED = Path(sys.argv[0]).name.startswith("resnet-detection")
INSTALL_DETECTRON2 = "resnet-detection install-detectron2" if INSTALLED else "python tools/install_detectron2.py"
INSTALL_TORCH = "pip install torch torchvision" if INSTALLED else "run `make env`, or `pip install -e .` in the project"
NEEDED = ("numpy", "cv2", "pycocotools", "fvcore", "yacs", "yaml", "orjson", "safetensors", "tensorboard", "tqdm")
DISTRIBUTION = {"cv2": "opencv-python-headless", "yaml": "PyYAML"}
# What makes a folder under the data root one of the known data sets.
DATA_SETS = {
    "COCO 2017": ("coco/annotations/instances_train2017.json", "coco/annotations/instances_val2017.json"),
    "COCO 2014": ("coco/annotations/instances_train2014.json", "coco/annotations/instances_val2014.json"),
    "PASCAL VOC 2007": ("VOC2007/ImageSets/Main", "VOCdevkit/VOC2007/ImageSets/Main"),
    "PASCAL VOC 2012": ("VOC2012/ImageSets/Main", "VOCdevkit/VOC2012/ImageSets/Main"),
}


class Line(NamedTuple):
    status: str
    subject: str
    finding: str
    mend: str = ""


def attempt(module: str) -> tuple[object | None, str]:
    """Import a module; return it, or None and the first line of the error."""
    try:
        return importlib.import_module(module), ""
    except Exception as error:  # whatever a broken package raises
        return None, (str(error).splitlines() or [type(error).__name__])[0]


def check_python() -> Line:
    found = sys.version.split()[0]
    if sys.version_info < (3, 10):  # noqa: UP036 (the tool says so instead of failing)
        return Line(BAD, "Python", found, "use Python 3.10 or newer")
    return Line(OK, "Python", f"{found} at {sys.executable}")


def check_torch() -> list[Line]:
    torch, error = attempt("torch")
    if torch is None:
        return [Line(BAD, "torch", error, INSTALL_TORCH)]
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    lines = [Line(OK, "torch", f"{torch.__version__}, {built}")]
    driver = shutil.which("nvidia-smi")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            lines.append(Line(OK, f"GPU {index}", f"{properties.name}, {memory}, {bf16}"))
    elif driver and _has_gpu(driver):
        reason = "this torch has no CUDA" if not torch.version.cuda else "its driver may be too old for this torch"
        lines.append(
            Line(BAD, "GPU", f"there is one, torch cannot use it: {reason}", "install the torch that fits the driver")
        )
    else:
        lines.append(Line(OK, "GPU", f"none; training runs on the CPU with {torch.get_num_threads()} threads"))
    return lines


def _has_gpu(driver: str) -> bool:
    done = subprocess.run([driver, "-L"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and "GPU" in done.stdout


def check_torchvision() -> Line:
    torch, _ = attempt("torch")
    vision, error = attempt("torchvision")
    if torch is None or vision is None:
        return Line(BAD, "torchvision", error or "needs torch", INSTALL_TORCH)
    try:
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
            vision.ops.nms(boxes.to(device), torch.ones(1, device=device), 0.5)
    except Exception as failure:  # a missing or unfit operator library raises RuntimeError or OSError
        wanted = _fitting_torchvision(torch.__version__)
        return Line(
            BAD, "torchvision", f"{vision.__version__} does not fit torch: {str(failure).splitlines()[0]}", wanted
        )
    return Line(OK, "torchvision", f"{vision.__version__}, its operators run")


def _fitting_torchvision(torch_version: str) -> str:
    major, minor = torch_version.split(".")[:2]
    # Since 2.0 (0.15) the two have gone up together.
    return (
        f"pip install 'torchvision==0.{int(minor) + 15}.*'" if major == "2" else "install the torchvision of that torch"
    )


def check_detectron2() -> Line:
    spec = importlib.util.find_spec("detectron2")
    if spec is None or not spec.submodule_search_locations:
        return Line(BAD, "detectron2", "not installed", f"run `{INSTALL_DETECTRON2}`")
    folder = Path(next(iter(spec.submodule_search_locations)))
    kind = "with its compiled part" if any(folder.glob("_C.*")) else "Python part"
    detection, error = attempt("detection")
    if detection is not None:
        try:
            detection.register()
            return Line(OK, "detectron2", f"{importlib.metadata.version('detectron2')}, {kind}, at {folder}")
        except Exception as failure:  # whatever an unfit detectron2 raises
            error = (str(failure).splitlines() or [type(failure).__name__])[0]
    return Line(BAD, "detectron2", f"{kind} at {folder} does not work: {error}", f"run `{INSTALL_DETECTRON2} --force`")


def check_packages() -> list[Line]:
    lines = []
    found = []
    for module in NEEDED:
        package, error = attempt(module)
        name = DISTRIBUTION.get(module, module)
        if package is None:
            mend = f"pip install {name}"
            if "libGL" in error:
                mend = "pip uninstall opencv-python && pip install --force-reinstall opencv-python-headless"
            lines.append(Line(BAD, name, error, mend))
            continue
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} {getattr(package, '__version__', '?')}")
    return [*lines, Line(OK, "packages", ", ".join(found))] if found else lines


def check_evaluation() -> Line:
    for module, name in (("hotcoco", "hotcoco"), ("faster_coco_eval", "faster-coco-eval")):
        if attempt(module)[0] is not None:
            return Line(OK, "evaluation", f"by {name}")
    return Line(WARN, "evaluation", "by pycocotools alone, which is slow", "pip install hotcoco")


def check_memory() -> list[Line]:
    lines = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        lines.append(
            Line(OK if gigabytes >= 6 else WARN, "memory", f"{gigabytes:.0f} GiB", "under 6 GiB training may fail")
        )
    free = shutil.disk_usage(".").free / 2**30
    lines.append(
        Line(OK if free >= 10 else WARN, "disk", f"{free:.0f} GiB free here", "checkpoints need room; free some")
    )
    return lines


def check_data(root: Path) -> list[Line]:
    if not root.is_dir():
        mend = "give --data-root or set DETECTRON2_DATASETS; the built-in mini set needs none"
        return [Line(WARN, "data root", f"{root} does not exist", mend)]
    lines = [Line(OK, "data root", str(root))]
    for name, markers in DATA_SETS.items():
        there = [marker for marker in markers if (root / marker).exists()]
        lines.append(Line(OK, name, there[0] if there else "not there"))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="(else $DETECTRON2_DATASETS, ./datasets)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines as JSON too")
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {message} (--help shows the usage)\n")
    arguments = parser.parse_args()
    root = arguments.data_root or Path(os.environ.get("DETECTRON2_DATASETS") or "datasets")
    checks = (
        check_python,
        check_torch,
        check_torchvision,
        check_detectron2,
        check_packages,
        check_evaluation,
        check_memory,
        lambda: check_data(root),
    )
    lines: list[Line] = []
    for check in checks:
        found = check()
        for line in [found] if isinstance(found, Line) else found:
            mend = f"  -> {line.mend}" if line.mend and line.status != OK else ""
            # At once: some checks import what takes seconds.
            print(f"{line.status:<5} {line.subject:<16} {line.finding}{mend}", flush=True)
            lines.append(line)
    broken = sum(line.status == BAD for line in lines)
    print("all is well" if not broken else f"{broken} to mend")
    if arguments.json:
        text = json.dumps([line._asdict() for line in lines], indent=2) + "\n"
        try:
            arguments.json.write_text(text, encoding="utf-8")
        except OSError as error:
            print(
                f"{parser.prog}: error: {arguments.json}: cannot be written: {error.strerror or error}", file=sys.stderr
            )
            return 2
    return 2 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
