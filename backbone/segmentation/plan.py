"""What a segmentation run is about to do, on one page."""

from __future__ import annotations

from typing import Any

from ..common.text import count
from ..engine import plan as page
from ..engine.loading import settle_workers
from .data import SegmentationSet
from .networks import SegmentationNetwork, atrous_rates


def plan(
    network: SegmentationNetwork,
    train: SegmentationSet | None,
    test: SegmentationSet,
    config: Any,
    *,
    weights: str,
    processes: int,
    notes: list[str],
) -> str:
    """Return the plan: network, weights, data, batch, images, schedule, tests, device, precision and output folder."""
    truth = "" if test.has_truth else ", without labels: no figures"
    rows = [
        ("network", _network(network, test, config)),
        ("weights", weights),
        *([("train", f"{train.name}: {count(len(train), 'image')}")] if train is not None else []),
        ("test", f"{test.name}: {count(len(test), 'image')}{truth}; {_inference(config)}"),
        *(_training(train, config, processes) if train is not None else []),
        *(("", note) for note in [*(page.schedule_notes(config, len(train)) if train is not None else []), *notes]),
        ("device", page.device(config, processes)),
        ("precision", page.precision(config)),
        ("output", config.OUTPUT_DIR),
    ]
    return page.layout(rows)


def _network(network: SegmentationNetwork, test: SegmentationSet, config: Any) -> str:
    model = config.MODEL
    head = model.HEAD.NAME
    if head == "deeplabv3":
        head += f" (rates {', '.join(map(str, atrous_rates(config)))})"
    auxiliary = f", auxiliary head x{model.HEAD.AUX_WEIGHT:g}" if model.HEAD.AUX_WEIGHT else ""
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    frozen = f", {model.FREEZE_AT} stages frozen" if model.FREEZE_AT else ""
    return (
        f"{model.NAME}, {model.NORM}, output stride {model.OUTPUT_STRIDE}{frozen}; {head}{auxiliary}; "
        f"{count(len(test.classes), 'class', 'classes')}; {parameters / 1e6:.2f} M parameters trained"
    )


def _inference(config: Any) -> str:
    test = config.TEST
    size = f"shorter side {test.SHORTER_SIDE}" if test.SHORTER_SIDE else "own size"
    scales = f", scales {', '.join(f'{scale:g}' for scale in test.SCALES)}" if tuple(test.SCALES) != (1.0,) else ""
    return f"{size}{scales}{', flip' if test.FLIP else ''}"


def _training(train: SegmentationSet, config: Any, processes: int) -> list[tuple[str, str]]:
    node = config.INPUT
    workers = count(settle_workers(config.DATALOADER.NUM_WORKERS, processes), "loader worker")
    base = f"of shorter side {node.SHORTER_SIDE}" if node.SHORTER_SIDE else "of the image"
    view = f"x{node.SCALE[0]:g}..{node.SCALE[1]:g} {base}, crop {node.TRAIN_SIZE}{', flip' if node.FLIP else ''}"
    return [
        ("batch", f"{page.batch(config, processes)}; {workers} each"),
        ("images", view),
        ("schedule", _schedule(train, config)),
    ]


def _schedule(train: SegmentationSet, config: Any) -> str:
    solver = config.SOLVER
    return (
        f"{page.length(config, len(train))}; lr {solver.BASE_LR:.4g} (heads x{solver.HEAD_LR_FACTOR:g}), "
        f"{page.course(solver)}; weight decay {solver.WEIGHT_DECAY:g}"
    )
