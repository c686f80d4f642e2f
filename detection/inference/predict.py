"""A trained detector on images and videos: pictures, JSON Lines and COCO results, in constant memory."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from backbone import ConfigError, DataError
from backbone.common.files import writing
from backbone.common.images import picture_of
from backbone.common.images.save import write_jpeg
from backbone.common.text import count
from backbone.engine import distributed
from backbone.engine.image_progress import ImageProgress
from backbone.engine.loading import resolve_workers
from backbone.engine.lock import locked
from backbone.engine.record import LOGGER

from ..visualization import draw_objects
from .detections import DRAWN
from .detector import Detector
from .drawn_videos import draw_videos
from .inputs import VIDEO, Inputs, list_inputs
from .items import Item, items_of, number_of_items, pixels_of_item
from .lines import PartWriter, Unfinished, coco_records, read_detections, summary, write_coco
from .listed import read_ids
from .pipeline import batch_size_of, pinned, run_pipeline
from .run import to_coco
from .saving import save_as
from .tiles import OVERLAP, Tiling, with_tiles
from .transform import TestTransform

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Outcome:
    """What `predict` did: images, their detections, how many of these are drawn, and what was skipped."""

    images: int
    detections: int
    drawn: int
    skipped: int


@dataclass(frozen=True)
class Options:
    """What `predict` can be told.

    Attributes:
        least_score: of what is drawn, and goes into the further `forms`.
        ids: a JSON in COCO form, whose image and category ids are taken; files that it does not list are left out.
        forms: keys of `saving.FORMS`.
        tile: the side of the tiles, in pixels, in which larger images are detected on, and `overlap`: the share of it
            that neighbours have in common. None: no tiles.
        every: of a video, detect on each frame whose number, from 0, this divides.
        pictures: whether to draw.
        overwrite: throw away what another run has left unfinished.
        weights: what the detector was loaded from; by it an unfinished run is known again.
    """

    least_score: float = DRAWN
    ids: Path | None = None
    forms: Collection[str] = ()
    tile: int | None = None
    overlap: float = OVERLAP
    every: int = 1
    pictures: bool = True
    overwrite: bool = False
    weights: str = ""


def predict(detector: Detector, pattern: str, output: Path, **options: Any) -> Outcome:
    """Detect on all that `pattern` names (see `list_inputs`) and write into `output`: pictures and videos,
    detections.jsonl, predictions.json and images.json. A collective call: processes share the images.

    detections.jsonl has a line for each image, in order, with every detection down to the model's own threshold. It
    grows as detections.part<n>.jsonl; called again, a run that was killed goes on behind these lines. predictions.json
    is in COCO's results form; images.json has the images and categories that its ids mean.

    Args:
        options: see `Options`.

    Raises:
        ConfigError: a value that cannot be.
        DataError: no image was found, or none could be read; or as in `read_ids`.
        RunError: the folder holds an unfinished run of something else, or cannot be written.
    """
    asked = Options(**options)
    if asked.every < 1:
        raise ConfigError(f"--every must be 1 or more, not {asked.every}")
    if not 0 <= asked.least_score <= 1:
        raise ConfigError(f"--score must be a number from 0 to 1, not {asked.least_score}")
    tiling = None if asked.tile is None else Tiling(asked.tile, asked.overlap)
    begun: list[Unfinished] = []
    with ExitStack() as stack, _folder(output):

        def begin() -> tuple[Inputs, list[int], np.ndarray, int]:
            inputs, category_ids = _listed(list_inputs(pattern, output), detector, asked.ids)
            with writing(output):
                output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(output))
            run = Unfinished(output, _facts(detector, inputs, asked), overwrite=asked.overwrite)
            begun.append(run)
            if len(run.done):
                log.info("%s: goes on behind %s", output, count(len(run.done), "image"))
            return inputs, category_ids, run.done, run.next_part()

        inputs, category_ids, done, part = distributed.made_by_main(begin)
        _detect(detector, inputs, output, asked, tiling, category_ids, done, part + distributed.rank())
        distributed.barrier()
        return distributed.made_by_main(lambda: _finish(begun[0], detector, inputs, asked, category_ids))


@contextmanager
def _folder(output: Path) -> Iterator[None]:
    """Take the folder away again where it is new and nothing came into it."""
    is_new = not output.exists()
    try:
        yield
    finally:
        if is_new and distributed.is_main():
            with suppress(OSError):  # there is something in it
                output.rmdir()


def _listed(inputs: Inputs, detector: Detector, ids: Path | None) -> tuple[Inputs, list[int]]:
    if ids is None:
        return inputs, detector.category_ids
    if inputs.has_videos:
        raise DataError("--ids is for images, and --input names a video")
    names = [inputs.name(row) for row in range(len(inputs))]
    listed = read_ids(ids, names, detector.classes, detector.category_ids)
    if listed.note:
        log.warning(listed.note)
    return inputs.chosen(listed.rows, listed.ids), listed.category_ids


def _facts(detector: Detector, inputs: Inputs, options: Options) -> dict[str, Any]:
    """Return what must be equal for a run to go on."""
    return {
        "--weights": options.weights,
        "config": blake2b(detector.config.dump().encode(), digest_size=8).hexdigest(),
        "set of files": f"{len(inputs):,} files, {inputs.digest()[:8]}",
        "--score": options.least_score,
        "--tile": options.tile,
        "--overlap": options.overlap,
        "--every": options.every,
        "--no-pictures": not options.pictures,
    }


def _detect(
    detector: Detector,
    inputs: Inputs,
    output: Path,
    options: Options,
    tiling: Tiling | None,
    category_ids: list[int],
    done: np.ndarray,
    part: int,
) -> None:
    """Detect on this process's share of what is not done: write the pictures and the lines."""
    config, order = detector.config, detector.channel_order
    channels, device, batch_size = len(config.MODEL.PIXEL_MEAN), config.MODEL.DEVICE, batch_size_of(config)
    model, transform = with_tiles(detector.tested, TestTransform(config), tiling, order, batch_size)
    pictures = inputs.pictures() if options.pictures else None
    names = dict(zip(category_ids, detector.classes))

    def read(item: Item) -> dict[str, Any]:
        image = pixels_of_item(item, channel_order=order, channels=channels)
        return {**pinned(transform(image, order), device), "original": image}

    def finish(item: Item, sample: dict[str, Any], instances: Instances) -> dict[str, Any]:
        if pictures is not None and item.row.kind != VIDEO:
            shown = instances[instances.scores >= options.least_score]
            picture = draw(picture_of(sample["original"], order), shown, detector.classes)
            write_jpeg(output / pictures[item.place], picture[:, :, ::-1])
        line: dict[str, Any] = {"id": item.id, "file_name": item.name}
        if item.row.kind == VIDEO:
            line |= {"video": item.row.name, "frame": item.frame, "seconds": item.seconds}
        line |= {"width": sample["width"], "height": sample["height"], "detections": []}
        for record in to_coco(instances, item.id, category_ids):
            del record["image_id"]
            line["detections"].append({"class": names[record["category_id"]], **record})
        return line

    threads = resolve_workers(config.DATALOADER.NUM_WORKERS, distributed.world_size())
    items = items_of(inputs, every=options.every, done=done)
    results = run_pipeline(model, items, read, finish, batch_size=batch_size, threads=threads)
    left = number_of_items(inputs, options.every) - len(done) if distributed.is_main() else 0
    writer = PartWriter(output, part)
    try:
        with ImageProgress(max(1, left), "detecting", visible=left > 1) as progress:
            for item, result in results:
                if isinstance(result, DataError):
                    log.warning("skipped: %s", result)
                    result = {"id": item.id, "file_name": item.row.name, "error": str(result)}
                writer.write(result)
                progress.add(1)
    finally:
        results.close()
        writer.close()


def _finish(run: Unfinished, detector: Detector, inputs: Inputs, options: Options, category_ids: list[int]) -> Outcome:
    """Make of the lines of all processes what the run is to leave."""
    *figures, fault = summary(run.lines(inputs.place), options.least_score)
    outcome = Outcome(*figures)
    if not outcome.images:
        run.finish()
        raise DataError(f"none of {count(len(inputs), 'file')} of --input could be read; {fault}")
    run.merge(inputs.place)
    names = dict(zip(category_ids, detector.classes))
    write_coco(run.output, [{"id": id_, "name": name} for id_, name in names.items()])

    def found() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        return ((line, coco_records(line)) for line in read_detections(run.output))

    save_as(options.forms, run.output, found, names, options.least_score)
    if options.pictures and inputs.has_videos:
        draw_videos(run.output, inputs, detector.classes, category_ids, options.least_score)
    run.finish()
    return outcome


def draw(image: np.ndarray, instances: Instances, classes: list[str]) -> np.ndarray:
    """Return the BGR image with boxes, and masks and keypoints where there are any, drawn on it."""
    masks = instances.pred_masks.numpy() if instances.has("pred_masks") else None
    boxes = instances.pred_boxes.tensor.numpy()
    labels, scores = instances.pred_classes.tolist(), instances.scores.tolist()
    points = instances.pred_keypoints.numpy() if instances.has("pred_keypoints") else None
    return draw_objects(image, boxes, labels, classes, scores=scores, masks=masks, keypoints=points)
