"""The four steps: what each trains, what it starts from, and where it lies in the run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from backbone.engine import checkpoint
from backbone.engine.record import RESULTS


@dataclass(frozen=True)
class Step:
    """A step of the training.

    Attributes:
        part: "rpn" or "fast_rcnn", what is trained beside the shared layers.
        shared_fixed: the shared layers are those of the step before, and stay so; otherwise they start from the
            pretrained weights and are trained too.
        says: in words.
    """

    number: int
    part: str
    shared_fixed: bool
    says: str

    @property
    def name(self) -> str:
        return f"step{self.number}_{self.part}"

    @property
    def proposals(self) -> str:
        """Name of the file with the proposals of this step's RPN."""
        return f"step{self.number}_proposals.npz"

    @property
    def before(self) -> Step | None:
        return STEPS[self.number - 2] if self.number > 1 else None

    def is_done(self, run: Path) -> bool:
        """Whether the step has ended; its results are the last that it writes."""
        return (run / self.name / checkpoint.FINAL).is_file() and (run / self.name / RESULTS).is_file()


STEPS = (
    Step(1, "rpn", False, "RPN and shared layers, from the first weights"),
    Step(2, "fast_rcnn", False, "Fast R-CNN and shared layers, from the first weights, on proposals of step 1"),
    Step(3, "rpn", True, "RPN from its first weights, on the shared layers of step 2, these fixed"),
    Step(4, "fast_rcnn", True, "Fast R-CNN's own layers, on proposals of step 3, shared layers fixed"),
)
# What the steps leave in the run folder.
STEP_FILES = (*(step.name for step in STEPS), *(step.proposals for step in STEPS if step.part == "rpn"))


def config_of(step: Step, config: CfgNode) -> CfgNode:
    """Return the config of a step of the run of `config`: folder, weights and batch; only the last is evaluated."""
    run = Path(config.OUTPUT_DIR)
    own = config.clone()
    own.defrost()
    own.OUTPUT_DIR = str(run / step.name)
    if step.part == "fast_rcnn":
        times = config.SOLVER.FAST_RCNN_IMAGES
        # Both: the rate stays, and scaling the schedule again changes nothing.
        own.SOLVER.IMS_PER_BATCH *= times
        own.SOLVER.REFERENCE_BATCH_SIZE *= times
        own.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = max(1, config.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE // times)
    if step.shared_fixed:
        own.MODEL.WEIGHTS = str(run / step.before.name / checkpoint.FINAL)
        own.MODEL.WEIGHTS_PART = ""
    if step != STEPS[-1]:
        own.DATASETS.TEST = ()
        own.TEST.EVAL_PERIOD = 0
    own.freeze()
    return own
