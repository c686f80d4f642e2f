"""tools/predict.py on a folder of images, as a whole process, against a loop of DefaultPredictor and Visualizer.

Both get one file of weights in detectron2's layout, random ones with many detections, and write a picture an image.

Example:
    python -m benchmarks.folder COCO/train2017 --number 20 --rounds 3 --write docs/results.md
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backbone.common.images import find_images

from .report import Section, write_section

SCORE = 0.5
OURS = "coco_faster_rcnn_r50_fpn.yaml"
TOOL = Path(__file__).parents[1] / "tools" / "predict.py"


def peer(settings: Path, weights: Path, images: Path, output: Path) -> None:
    """What a user of detectron2 writes."""
    # detectron2's Python part needs it first.
    import detection.compat  # noqa: F401, I001
    import cv2
    from detectron2.config import get_cfg
    from detectron2.data import MetadataCatalog
    from detectron2.engine import DefaultPredictor
    from detectron2.utils.visualizer import Visualizer

    config = get_cfg()
    config.merge_from_file(str(settings))
    config.MODEL.WEIGHTS = str(weights)
    predictor = DefaultPredictor(config)
    metadata = MetadataCatalog.get("folder").set(thing_classes=[f"class {index}" for index in range(80)])
    for file in sorted(images.iterdir()):
        image = cv2.imread(str(file))
        found = predictor(image)["instances"].to("cpu")
        picture = Visualizer(image[:, :, ::-1], metadata).draw_instance_predictions(found[found.scores >= SCORE])
        cv2.imwrite(str(output / file.name), picture.get_image()[:, :, ::-1])


def prepare(folder: Path, images: Path, number: int) -> None:
    """Link the images, and write the config and the weights of both."""
    import cv2
    import numpy as np
    import torch

    import detection

    from .stock import make_pair, stock_config

    detection.register()
    (folder / "images").mkdir()
    files = sorted(find_images(images))[:number]
    for file in files:
        (folder / "images" / file.name).symlink_to(file.resolve())
    sample = torch.from_numpy(np.ascontiguousarray(cv2.imread(str(files[0])).transpose(2, 0, 1)))
    pair = make_pair("r50_fpn", [{"image": sample}], "cpu")
    # Without "matching_heuristics" and the like: a plain checkpoint of detectron2's trainer.
    torch.save({"model": pair.stock.state_dict()}, folder / "weights.pth")
    (folder / "config.yaml").write_text(stock_config("r50_fpn", "cpu").dump())


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds on the clock and of CPU."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def measure(images: Path, *, number: int, rounds: int) -> Section:
    """Time both, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, images, number)
        output = folder / "peer"
        output.mkdir()
        stock = [sys.executable, "-m", "benchmarks.folder", "--peer", str(folder / "config.yaml"), str(output)]
        own = [sys.executable, str(TOOL), "--config", OURS, "--weights", str(folder / "weights.pth"), "--device", "cpu"]
        own += ["--input", str(folder / "images"), "--score", str(SCORE)]
        taken: dict[str, list[tuple[float, float]]] = {"detectron2": [], "ours": []}
        for turn in range(rounds):
            taken["detectron2"].append(timed([*stock, str(folder / "weights.pth"), str(folder / "images")]))
            taken["ours"].append(timed([*own, "--output", str(folder / f"ours{turn}")]))
        pictures = [len(list(place.rglob("*.jpg"))) for place in (output, folder / "ours0")]
    (clock, cpu), (own_clock, own_cpu) = ([statistics.median(of) for of in zip(*times)] for times in taken.values())
    rows = [
        ["DefaultPredictor and Visualizer", pictures[0], clock, cpu, 1.0, 1.0],
        ["tools/predict.py", pictures[1], own_clock, own_cpu, clock / own_clock, cpu / own_cpu],
    ]
    return Section(
        name="predict-folder",
        title="A folder of images, whole processes, on a CPU",
        method=(
            f"R50 FPN, 800/1333, 1,000 proposals, random weights with many detections, {number} images of COCO, a "
            f"picture each; start and loading counted; threads: {os.environ.get('OMP_NUM_THREADS', 'all')}; in turn, "
            f"median of {rounds} round(s)."
        ),
        header=["", "pictures", "s", "CPU s", "times", "times, CPU"],
        rows=rows,
        figures=taken,
    )


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        settings, output, weights, images = map(Path, sys.argv[2:])
        peer(settings, weights, images, output)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    section = measure(arguments.images, number=arguments.number, rounds=arguments.rounds)
    sys.stdout.write(section.text("cpu") + "\n")
    if arguments.write:
        write_section(arguments.write, section, "cpu")


if __name__ == "__main__":
    main()
