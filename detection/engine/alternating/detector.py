"""A detector of which one part is trained."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from .steps import Step


class StepRCNN(GeneralizedRCNN):
    """A whole detector, its tensors named as ever, of which a step trains the RPN or Fast R-CNN.

    What the step does not train is fixed: no gradients, and batch statistics as in evaluation. Evaluated, it is the
    whole detector.
    """

    step: Step | None = None

    def begin(self, step: Step) -> StepRCNN:
        """Fix all that `step` does not train."""
        self.step = step
        for module in self.fixed:
            module.requires_grad_(False)
        return self

    @property
    def fixed(self) -> list[nn.Module]:
        """The parts that the step does not train; all of the backbone, a pyramid included, is shared."""
        other = self.roi_heads if self.step.part == "rpn" else self.proposal_generator
        return [other, self.backbone] if self.step.shared_fixed else [other]

    def train(self, mode: bool = True) -> StepRCNN:
        super().train(mode)
        if self.step is not None:
            for module in self.fixed:
                module.eval()
        return self

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return the losses of the step's part; Fast R-CNN's take `proposals` from each sample, and without them are
        those of the whole detector (a validation). See GeneralizedRCNN."""
        if not self.training:
            return self.inference(batched_inputs)
        if self.step.part == "fast_rcnn" and "proposals" not in batched_inputs[0]:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        targets = [sample["instances"].to(self.device) for sample in batched_inputs]
        features = self.backbone(images.tensor)
        if self.step.part == "rpn":
            return self.proposal_generator(images, features, targets)[1]
        proposals = [sample["proposals"].to(self.device) for sample in batched_inputs]
        return self.roi_heads(images, features, proposals, targets)[1]
