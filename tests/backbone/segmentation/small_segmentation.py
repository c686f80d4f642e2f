"""What the tests of segmentation share: small sets on disk, and tools/train_segmentation.py as people start it."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import warm_commands

from backbone.segmentation.data.labels import write_label

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("background", "round", "square")
KEYS = {
    "INPUT.TRAIN_SIZE": 48,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.REFERENCE_BATCH_SIZE": 2,
    "SOLVER.MAX_ITER": 4,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.LOG_PERIOD": 1,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "TEST.EVAL_PERIOD": 0,
    "TEST.PICTURES": 2,
    "DATA.VAL_IMAGES": 3,
    "DATALOADER.NUM_WORKERS": 1,
}


def scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a BGR image with a disc and a square, and its labels with a void rim."""
    random = np.random.default_rng(index)
    height, width = (60, 72) if index % 2 else (72, 60)
    image = random.integers(0, 90, (height, width, 3), dtype=np.uint8)
    label = np.zeros((height, width), np.uint8)
    x, y = (int(value) for value in random.integers(18, 42, 2))
    cv2.circle(label, (x, y), 14, 255, -1)
    cv2.circle(label, (x, y), 12, 1, -1)
    label[4:16, 4:20] = 2
    image[label == 1] += np.uint8([0, 0, 150])
    image[label == 2] += np.uint8([150, 0, 0])
    return image, label


def write_folders(root: Path, numbers: dict[str, int] | None = None) -> Path:
    """Write images/<split>, labels/<split> and classes.txt."""
    for place, (split, number) in enumerate((numbers or {"train": 4, "val": 3}).items()):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(number):
            image, label = scene(100 * place + index)
            cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
            write_label(root / "labels" / split / f"{index}.png", label)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def write_voc(root: Path) -> Path:
    """Write VOCdevkit/VOC2012 with the lists train, val and test; test has no labels."""
    folder = root / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    for path in (folder / "JPEGImages", folder / "SegmentationClass", lists):
        path.mkdir(parents=True)
    for place, split in enumerate(("train", "val", "test")):
        stems = [f"2012_{place}{index}" for index in range(3)]
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for index, stem in enumerate(stems):
            image, label = scene(10 * place + index)
            cv2.imwrite(str(folder / "JPEGImages" / f"{stem}.jpg"), image)
            if split != "test":
                write_label(folder / "SegmentationClass" / f"{stem}.png", label)
    return root


def command(output: Path, *flags: str, config: str = "mini_fcn_r18.yaml", **changes: object) -> list[str]:
    keys = {**KEYS, **{key.replace("__", "."): value for key, value in changes.items()}}
    start = [sys.executable, str(ROOT / "tools" / "train_segmentation.py"), "--config", config]
    pairs = [str(part) for pair in keys.items() for part in pair]
    return [*start, "--output-dir", str(output), "--device", "cpu", *flags, *pairs]


def run(output: Path, *flags: str, status: int = 0, **changes: object) -> str:
    """Run the command, check its exit status and return what it printed."""
    done = warm_commands.run(command(output, *flags, **changes))
    assert done.returncode == status, done.stdout[-1500:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr
