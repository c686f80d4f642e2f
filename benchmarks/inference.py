"""Backbone inference: ours, folded and exported, against detectron2's and torchvision's own."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

import backbone
import detection
from backbone import ConfigError
from backbone.engine.timing import alternate
from backbone.networks import FoldedBackbone, find_architecture

from .report import Section

STAGES = ("res2", "res3", "res4", "res5")
# Seconds: longer than the threads of ONNX Runtime, OpenVINO and OpenMP spin.
PAUSE = 0.5
STOCK = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
LAYERS = {f"layer{index + 1}": stage for index, stage in enumerate(STAGES)}


def detectron2_backbone(name: str, *, freeze_at: int = 0) -> nn.Module:
    """Return detectron2's own ResNet of that depth, frozen BN, all four stages out."""
    config = detection.get_config("coco_faster_rcnn_r50_fpn.yaml").clone()
    config.defrost()
    if name not in STOCK:
        raise ConfigError(f"{name}: the peers have {', '.join(STOCK)} alone; --backbone names one of them")
    config.MODEL.RESNETS.DEPTH = int(name.removeprefix("resnet"))
    config.MODEL.RESNETS.RES2_OUT_CHANNELS = find_architecture(name).channels[0]
    config.MODEL.RESNETS.OUT_FEATURES = list(STAGES)
    config.MODEL.BACKBONE.FREEZE_AT = freeze_at
    return build_resnet_backbone(config, ShapeSpec(channels=3))


def torchvision_backbone(name: str) -> nn.Module:
    """Return torchvision's ResNet with all four stages out."""
    return IntermediateLayerGetter(getattr(torchvision.models, name)(), LAYERS)


def measure(
    name: str,
    *,
    size: tuple[int, int],
    rounds: int,
    device: str,
    exports: bool,
    seconds: float | None = None,
) -> Section:
    """Time one image through every form of the network `name`.

    Args:
        size: height and width.
        exports: also export to ONNX and OpenVINO, and run those in their runtimes (CPU).
        seconds: see `suite.run_all`.
    """
    images = torch.randn(1, 3, *size, device=device)
    net = backbone.create(name, norm="frozen_bn", out_features=STAGES).eval().to(device)
    peers = {
        "detectron2": detectron2_backbone(name).eval().to(device),
        "torchvision": torchvision_backbone(name).eval().to(device),
        "ours, frozen BN as trained": net,
        "ours, fold": backbone.fold(net),
        "ours, fold, compiled": backbone.fold(net, compile=True),
        "ours, fold, bfloat16": backbone.fold(net, dtype=torch.bfloat16),
    }
    with contextlib.ExitStack() as stack, torch.inference_mode():
        ways: dict[str, Callable[[], object]] = {label: _call(peer, images) for label, peer in peers.items()}
        if exports:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            ways |= exported_ways(net, folder, images.cpu())
        timings = alternate(ways, rounds=rounds, warm_up=2, pause=PAUSE if exports else 0.0, within=seconds)
    stock, vision = timings["detectron2"].median, timings["torchvision"].median
    rows = [
        [label, 1000 * timing.median, stock / timing.median, vision / timing.median, timing.spread]
        for label, timing in timings.items()
    ]
    return Section(
        name=f"inference-{name}-{torch.device(device).type}",
        title=f"Inference of the {name} backbone",
        method=(
            f"res2 to res5 of one image of 3x{size[0]}x{size[1]}, float32 unless it says otherwise; in one process, "
            f"in turn, median of {timings['detectron2'].rounds} rounds. Times as fast: the peer's median over this one."
        ),
        header=["network", "ms", "times detectron2", "times torchvision", "slowest/fastest"],
        rows=rows,
        figures={label: {"ms": 1000 * timing.median} for label, timing in timings.items()},
    )


def _call(network: nn.Module | FoldedBackbone, images: Tensor) -> Callable[[], object]:
    return lambda: network(images)


def exported_ways(net: backbone.Backbone, folder: Path, images: Tensor) -> dict[str, Callable[[], object]]:
    """Export the network, and return calls of ONNX Runtime and OpenVINO on the images."""
    import onnxruntime
    import openvino

    size = tuple(images.shape[2:])
    array = images.numpy()
    backbone.export(net, folder / "net.onnx", input_size=size)
    backbone.export(net, folder / "net.xml", input_size=size)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    # The file takes any size; what is known when it is opened lets the runtime plan its memory.
    for axis, length in zip(("batch", "height", "width"), (1, *size)):
        settings.add_free_dimension_override_by_name(axis, length)
    session = onnxruntime.InferenceSession(folder / "net.onnx", settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    ways: dict[str, Callable[[], object]] = {"ours, ONNX Runtime": lambda: session.run(None, {name: array})}
    core = openvino.Core()
    for precision in ("f32", "bf16"):
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        request = core.compile_model(folder / "net.xml", "CPU", hints).create_infer_request()
        ways[f"ours, OpenVINO {precision}"] = lambda request=request: request.infer(
            [array], share_inputs=True, share_outputs=True
        )
    return ways
