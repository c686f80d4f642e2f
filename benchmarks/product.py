"""Detection as users run it, against detectron2's DefaultPredictor and Visualizer: from files to pictures, by part."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from backbone.common.images import find_images, read_image
from detection.inference.methods import as_tested
from detection.inference.predict import draw
from detection.inference.run import to_coco
from detection.inference.transform import TestTransform

from .report import Section
from .stock import Pair, make_pair

PEER, OURS = "detectron2", "ours"
SCORE = 0.5
IMAGES = 2
# Parts of a model, each without those that run inside of it; "" is what is left.
PARTS = {
    "": "normalise, boxes to the file's pixels",
    "backbone": "pyramid",
    "backbone.bottom_up": "backbone",
    "proposal_generator": "anchors, proposals, NMS",
    "proposal_generator.rpn_head": "RPN head",
    "roi_heads": "NMS of detections",
    "roi_heads.box_pooler": "pooling",
    "roi_heads.pooler": "pooling",
    "roi_heads.box_head": "layers on regions",
    "roi_heads.res5": "layers on regions",
    "roi_heads.box_predictor": "layers on regions",
    "roi_heads.mask_pooler": "masks",
    "roi_heads.mask_head": "masks",
}
ORDER = ("decode", "resize", *dict.fromkeys(PARTS.values()), "draw, records, JPEG")
CLASSES = [f"class {index}" for index in range(80)]


class Clock:
    """Seconds by part, each without the parts inside of it: as they pass, and of the process on all its cores."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = (0.0, 0.0)

    def _book(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._open:
            self.wall[self._open[-1]] += now[0] - self._last[0]
            self.cpu[self._open[-1]] += now[1] - self._last[1]
        self._last = now

    def enter(self, part: str) -> None:
        self._book()
        self._open.append(part)

    def leave(self) -> None:
        self._book()
        self._open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.enter(name)
        yield
        self.leave()

    def watch(self, model: nn.Module) -> nn.Module:
        """Book the parts of a detector; its own layers stay unwatched, and run as they do without."""
        names = dict(PARTS)
        if not hasattr(model.backbone, "bottom_up"):
            names["backbone"] = "backbone"
        for name, part in names.items():
            try:
                module = model.get_submodule(name)
            except AttributeError:
                continue
            module.register_forward_pre_hook(lambda *_, part=part: self.enter(part))
            module.register_forward_hook(lambda *_: self.leave())
        return model


def peer_way(model: nn.Module, clock: Clock) -> Callable[[Path], None]:
    """Return what a loop of DefaultPredictor and Visualizer does with a file."""
    # Here: detection's compat must come first.
    from detectron2.data import MetadataCatalog
    from detectron2.data.transforms import ResizeShortestEdge
    from detectron2.utils.visualizer import Visualizer

    clock.watch(model.eval())
    metadata = MetadataCatalog.get("benchmark").set(thing_classes=CLASSES)
    resize = ResizeShortestEdge([800, 800], 1333)

    @torch.no_grad()
    def run(file: Path) -> None:
        with clock.part("decode"):
            image = cv2.imread(str(file))
        with clock.part("resize"):
            resized = resize.get_transform(image).apply_image(image)
            tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        found = model([{"image": tensor, "height": image.shape[0], "width": image.shape[1]}])[0]["instances"]
        with clock.part("draw, records, JPEG"):
            found = found.to("cpu")
            to_coco(found, 1, list(range(80)))
            picture = Visualizer(image[:, :, ::-1], metadata).draw_instance_predictions(found[found.scores >= SCORE])
            cv2.imencode(".jpg", picture.get_image()[:, :, ::-1])

    return run


def our_way(pair: Pair, clock: Clock) -> Callable[[Path], None]:
    """Return what tools/predict.py does with a file, one thing after the other."""
    model = clock.watch(as_tested(pair.ours, pair.config, CLASSES))
    transform = TestTransform(pair.config)

    @torch.inference_mode()
    def run(file: Path) -> None:
        with clock.part("decode"):
            image = read_image(file)
        with clock.part("resize"):
            sample = transform(image)
        found = model([sample])[0]["instances"]
        with clock.part("draw, records, JPEG"):
            to_coco(found, 1, list(range(80)))
            cv2.imencode(".jpg", draw(image, found[found.scores >= SCORE], CLASSES), [cv2.IMWRITE_JPEG_QUALITY, 92])

    return run


def measure(name: str, images: Path, *, rounds: int) -> Section:
    """Time one detector as detectron2's model zoo has it on the first IMAGES files of a folder, each way in turn."""
    files = sorted(find_images(images))[:IMAGES]
    first = torch.from_numpy(np.ascontiguousarray(cv2.imread(str(files[0])).transpose(2, 0, 1)))
    pair = make_pair(name, [{"image": first}], "cpu")
    clocks = {PEER: Clock(), OURS: Clock()}
    ways = {PEER: peer_way(pair.stock, clocks[PEER]), OURS: our_way(pair, clocks[OURS])}
    taken: dict[str, dict[str, dict[str, list[float]]]] = {way: {"wall": {}, "cpu": {}} for way in ways}
    for turn in range(rounds + 1):
        for way, run in ways.items():
            clock = clocks[way]
            clock.wall.clear(), clock.cpu.clear()
            for file in files:
                run(file)
            if turn:  # the first one warms up
                for kind in ("wall", "cpu"):
                    for part, seconds in {**getattr(clock, kind), "all": sum(getattr(clock, kind).values())}.items():
                        taken[way][kind].setdefault(part, []).append(1000 * seconds / len(files))
    medians = {
        (way, kind): {part: statistics.median(values) for part, values in of_kind.items()}
        for way, kinds in taken.items()
        for kind, of_kind in kinds.items()
    }
    columns = [medians[way, kind] for way in ways for kind in ("wall", "cpu")]
    rows = []
    for part in (*ORDER, "all"):
        if all(part in column for column in columns):
            peer, peer_cpu, own, own_cpu = (column[part] for column in columns)
            rows.append([part, peer, peer_cpu, own, own_cpu, peer / own, peer_cpu / own_cpu])
    return Section(
        name=f"product-{name}",
        title=f"Detection from file to picture, {name.replace('_', ' ').upper()}, on a CPU",
        method=(
            f"detectron2's model zoo config as it is (800/1333, 1,000 proposals), random weights, the same in both, "
            f"float32, {torch.get_num_threads()} thread(s), {len(files)} COCO image(s); in turn, median of {rounds} "
            "rounds. detectron2: DefaultPredictor and Visualizer. Ours: the functions of tools/predict.py, one after "
            "the other. ms an image: as they pass, and of all cores, which other load hardly changes."
        ),
        header=["part", "detectron2 ms", "its CPU ms", "ours ms", "our CPU ms", "times", "times, CPU"],
        rows=rows,
        figures={f"{way}, {kind}": values for (way, kind), values in medians.items()},
    )
