"""Memory of tools/predict.py by the number of images: `python -m benchmarks.many_images FOLDER`.

FOLDER gets a detector of one layer, so that the time is that of everything else, 20 small JPEGs, and links to these.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import detection
from backbone.common.text import table
from backbone.engine.config import dump
from backbone.exporting.onnx_file import KEY

ROOT = Path(__file__).resolve().parents[1]
PHOTOS, SIDE = 20, 64
OBJECTS = 10
SMALL = ["MODEL.ROI_HEADS.NUM_CLASSES", 2, "MODEL.WEIGHTS", "", "INPUT.MIN_SIZE_TEST", SIDE]


def make(folder: Path) -> Path:
    """Write the images and a detector of one layer, as tools/export_detector.py would; return the detector's file."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{number}.jpg"), cv2.resize(coarse, (SIDE, SIDE)))
    config = detection.get_config("coco_faster_rcnn_r50_fpn.yaml", SMALL)
    about = {"name": "image", "dtype": "float32"}
    metadata = {"config": dump(config), "classes": ["a", "b"], "category_ids": [1, 2], "input": about}
    metadata["outputs"] = ["boxes", "scores", "classes"]
    corners = np.sort(random.uniform(1, SIDE - 1, (OBJECTS, 2, 2)), axis=1).reshape(OBJECTS, 4).astype(np.float32)
    constants = {
        "corners": corners,
        "scores": np.linspace(0.9, 0.1, OBJECTS, dtype=np.float32),
        "classes": np.arange(OBJECTS) % 2,
        "scale": np.float32(1 / 255),
    }
    nodes = [
        *(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            for name, value in constants.items()
        ),
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["shift"]),
        helper.make_node("Add", ["corners", "shift"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one layer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [3, "height", "width"])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [OBJECTS, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [OBJECTS]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, [OBJECTS]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {KEY: json.dumps(metadata)})
    onnx.save(model, folder / "layer.onnx")
    return folder / "layer.onnx"


def link(folder: Path, number: int) -> Path:
    """Return a folder with so many links to the photos, 100 in each folder of it."""
    linked = folder / f"linked_{number}"
    for row in range(number):
        path = linked / f"{row // 100:04d}" / f"photo_{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(folder / "photos" / f"{row % PHOTOS}.jpg", path)
    return linked


def measure(weights: Path, images: Path, output: Path) -> tuple[int, float, float]:
    """Return the number of lines, the peak of resident memory in MiB, and the seconds, of a run in one process."""
    command = [sys.executable, str(ROOT / "tools" / "predict.py"), "--weights", str(weights), "--input", str(images)]
    command += ["--output", str(output), "--device", "cpu", "--no-pictures", "--overwrite"]
    command += ["DATALOADER.NUM_WORKERS", "1"]
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    with (output / "detections.jsonl").open("rb") as file:
        lines = sum(1 for _ in file)
    # Linux counts in KiB.
    return lines, usage.ru_maxrss / 1024, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000, 100000])
    arguments = parser.parse_args()
    detection.register()
    weights, rows = make(arguments.folder), []
    for number in arguments.images:
        lines, peak, seconds = measure(weights, link(arguments.folder, number), arguments.folder / f"found_{number}")
        rows.append((lines, round(peak), round(lines / seconds, 1)))
    sys.stdout.write(table(rows, ("images", "peak memory MiB", "images a second")) + "\n")


if __name__ == "__main__":
    main()
