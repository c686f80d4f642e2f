"""The parts of a detector that torch.compile takes: MODEL.COMPILE."""

from __future__ import annotations

from torch import nn


def compile_parts(model: nn.Module) -> None:
    """Compile the network with its pyramid, and what runs on regions, in place.

    Names of weights, copies and checkpoints stay as they are. The network's graph takes images of any size, so that no
    size of a training with several compiles anew. What chooses regions has no shape of its own, and is left alone.
    """
    model.backbone.compile(dynamic=True)
    heads = getattr(model, "roi_heads", None)
    # conv5 of C4; the box heads of a cascade are a list.
    stage, boxes = getattr(heads, "res5", None), getattr(heads, "box_head", None)
    for module in (stage, *(boxes if isinstance(boxes, nn.ModuleList) else [boxes])):
        if module is not None:
            # As many regions at each step, but for the first ones of a training.
            module.compile()
