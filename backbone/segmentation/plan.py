"""What a segmentation run is about to do, on one page."""

from __future__ import annotations

from typing import Any

from ..engine.environment import device_name
from ..engine.loading import settle_workers
from ..engine.solver import device_of
from ..text import count
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
    device = device_name(device_of(config))
    truth = "" if test.has_truth else ", without labels: no figures"
    rows = [
        ("network", _network(network, test, config)),
        ("weights", weights),
        *([("train", f"{train.name}: {count(len(train), 'image')}")] if train is not None else []),
        ("test", f"{test.name}: {count(len(test), 'image')}{truth}; {_inference(config)}"),
        *(_training(train, config, processes) if train is not None else []),
        *(("", note) for note in notes),
        ("device", device if processes == 1 else f"{processes} x {device}"),
        ("precision", _precision(config)),
        ("output", config.OUTPUT_DIR),
    ]
    return "\n".join(["Plan", *(f"  {name:<10} {text}" for name, text in rows)])


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
    solver, node = config.SOLVER, config.INPUT
    total = solver.IMS_PER_BATCH
    share = f"{total // processes} in each of {count(processes, 'process', 'processes')}"
    workers = count(settle_workers(config.DATALOADER.NUM_WORKERS, processes), "loader worker")
    base = f"of shorter side {node.SHORTER_SIDE}" if node.SHORTER_SIDE else "of the image"
    view = f"x{node.SCALE[0]:g}..{node.SCALE[1]:g} {base}, crop {node.TRAIN_SIZE}{', flip' if node.FLIP else ''}"
    return [
        ("batch", f"{count(total, 'image')} a step, {share}; {workers} each"),
        ("images", view),
        ("schedule", _schedule(train, config)),
    ]


def _schedule(train: SegmentationSet, config: Any) -> str:
    solver = config.SOLVER
    epochs = solver.MAX_ITER * solver.IMS_PER_BATCH / max(1, len(train))
    steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
    drops = {
        "WarmupPolyLR": f"poly {solver.POLY_POWER:g}",
        "WarmupCosineLR": "cosine",
        "WarmupMultiStepLR": f"x{solver.GAMMA:g} at {', '.join(f'{step:,}' for step in steps)}"
        if steps
        else "constant",
    }[solver.LR_SCHEDULER_NAME]
    warm_up = f", warm-up {solver.WARMUP_ITERS:,}" if solver.WARMUP_ITERS else ""
    return (
        f"{count(solver.MAX_ITER, 'iteration')} = {epochs:.4g} epochs; lr {solver.BASE_LR:.4g} "
        f"(heads x{solver.HEAD_LR_FACTOR:g}), {drops}{warm_up}; weight decay {solver.WEIGHT_DECAY:g}"
    )


def _precision(config: Any) -> str:
    amp = config.SOLVER.AMP
    text = f"{amp.DTYPE} where it is safe, else float32" if amp.ENABLED else "float32"
    return f"{text}, channels_last" if config.MODEL.CHANNELS_LAST else text
