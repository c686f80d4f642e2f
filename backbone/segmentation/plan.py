"""What a segmentation run is about to do, on one page."""

from __future__ import annotations

from typing import Any

from ..common.text import count
from ..engine import plan as page
from .data import SegmentationSet
from .losses import FOCAL
from .networks import SegmentationNetwork, atrous_rates


def plan(
    network: SegmentationNetwork,
    train: SegmentationSet | None,
    test: SegmentationSet,
    config: Any,
    *,
    weights: str,
    notes: list[str],
) -> str:
    """Return the plan: network, weights, data, batch, images, schedule, tests, device, precision and output folder."""
    truth = "" if test.has_truth else ", without labels: no figures"
    rows = [("network", _network(network, test, config)), ("weights", weights)]
    if train is not None:
        rows.append(("train", f"{train.name}: {count(len(train), 'image')}"))
    rows.append(("test", f"{test.name}: {count(len(test), 'image')}{truth}; {_inference(config)}"))
    if train is not None:
        rows += [
            ("batch", f"{page.batch(config)}; {page.loaders(config)}"),
            ("images", _view(config)),
            ("loss", _loss(config)),
            ("schedule", _schedule(train, config)),
        ]
        notes = [*page.schedule_notes(config, len(train)), *notes]
    return page.page(config, rows, notes)


def _network(network: SegmentationNetwork, test: SegmentationSet, config: Any) -> str:
    model = config.MODEL
    head = model.HEAD.NAME
    if head == "deeplabv3":
        head += f" (rates {', '.join(map(str, atrous_rates(config)))})"
    head += " of MMSegmentation" if model.HEAD.STYLE == "mmsegmentation" else ""
    auxiliary = f", auxiliary head x{model.HEAD.AUX_WEIGHT:g}" if model.HEAD.AUX_WEIGHT else ""
    frozen = f", {model.FREEZE_AT} stages frozen" if model.FREEZE_AT else ""
    return (
        f"{model.NAME}, {model.NORM}, output stride {model.OUTPUT_STRIDE}{frozen}; {head}{auxiliary}; "
        f"{count(len(test.classes), 'class', 'classes')}; {page.trained(network)}"
    )


def _inference(config: Any) -> str:
    test = config.TEST
    size = f"shorter side {test.SHORTER_SIDE}" if test.SHORTER_SIDE else "own size"
    scales = f", scales {', '.join(f'{scale:g}' for scale in test.SCALES)}" if tuple(test.SCALES) != (1.0,) else ""
    windows = f", windows of {test.WINDOW}" if test.WINDOW else ""
    return f"{size}{scales}{', flip' if test.FLIP else ''}{windows}"


def _view(config: Any) -> str:
    node = config.INPUT
    base = f"of shorter side {node.SHORTER_SIDE}" if node.SHORTER_SIDE else "of the image"
    more = [name for name, on in (("flip", node.FLIP), ("colour jitter", node.COLOR_JITTER.ENABLED)) if on]
    return ", ".join([f"x{node.SCALE[0]:g}..{node.SCALE[1]:g} {base}", f"crop {node.TRAIN_SIZE}", *more])


def _loss(config: Any) -> str:
    solver = config.SOLVER
    text = f"focal, gamma {solver.FOCAL_GAMMA:g}" if solver.LOSS == FOCAL else "cross-entropy"
    text += f" + {solver.DICE_WEIGHT:g} Dice" if solver.DICE_WEIGHT else ""
    return text + page.class_weights(solver)


def _schedule(train: SegmentationSet, config: Any) -> str:
    solver = config.SOLVER
    return (
        f"{page.length(config, len(train))}; lr {solver.BASE_LR:.4g} (heads x{solver.HEAD_LR_FACTOR:g}), "
        f"{page.course(solver)}; weight decay {solver.WEIGHT_DECAY:g}"
    )
