"""Every key of the config is read by a run, or refused in one line where it differs from its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from keypoint_set import SIGMAS, write_corners

import detection
from backbone import ConfigError
from backbone.classification.config import default_config as classifiers_config
from backbone.engine.config import flat
from backbone.engine.processes import Launch
from backbone.engine.session import Request
from backbone.engine.solver import make_settings
from backbone.segmentation.config import default_config as segmentation_config
from detection.config import default_config
from detection.config.checks import DERIVED
from detection.config.keys import idle_keys, instead_of, unread_keys
from detection.engine.session import run
from detection.modeling.build import build

MINI = "mini_faster_rcnn_r18.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.AUTO_SCALE": False,
    "INPUT.MIN_SIZE_TRAIN": (64, 80),
    "INPUT.MIN_SIZE_TEST": 64,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.PICTURES": 1,
    # The first images of the mini set's.
    "DATASETS.TEST": ("custom_val",),
}
ON = {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8, "SOLVER.AMP.ENABLED": True}
AUGMENTED = {f"INPUT.{name}.ENABLED": True for name in ("CROP", "MOSAIC", "COPY_PASTE", "COLOR_JITTER")}
JITTERED = {"INPUT.LARGE_SCALE_JITTER.ENABLED": True, "INPUT.LARGE_SCALE_JITTER.SIZE": (64, 80)}
METHODS = {f"TEST.{name}.ENABLED": True for name in ("BOX_REFINEMENT", "BOX_VOTING", "SOFT_NMS", "AUG")}
REPEAT = {"DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD": 0.1}
CLIP = {"SOLVER.CLIP_GRADIENTS.ENABLED": True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm"}
COSINE = {"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR"}
CONTEXT = {"MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT": True, "MODEL.RESNETS.NORM": "FrozenBN"}
CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
RUNS = (
    {**ON, **METHODS, **REPEAT, **AUGMENTED, "TEST.AUG.MIN_SIZES": (64,)},
    {**CASCADE, **CLIP, **JITTERED, "TEST.EVAL_PERIOD": 1, "MODEL.ROI_BOX_HEAD.CLASS_LOSS": "focal"},
    {"TEST.MULTI_SCALE.ENABLED": True, "TEST.MULTI_SCALE.SIDES": (48, 64), **COSINE, **CONTEXT},
)
KEYPOINTS = {"MODEL.KEYPOINT_ON": True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (8,), "TEST.KEYPOINT_OKS_SIGMAS": SIGMAS}
KEYPOINTS |= {"DATASETS.TRAIN": ("custom_train",)}
# Of data sets that these runs do not have; and derived from MODEL.BACKBONE.NAME, others are refused.
READ_ELSEWHERE = {f"DATASETS.CUSTOM.{split}{part}" for split in ("TRAIN", "VAL") for part in ("", "_JSON", "_IMAGES")}
# The first where a run begins from weights, the second in the alternating scheme.
READ_ELSEWHERE |= {"MODEL.WEIGHTS_PART", "SOLVER.FAST_RCNN_IMAGES"}
# By RetinaNet's pyramid.
READ_ELSEWHERE |= {"MODEL.FPN.RELU_BEFORE_P7", "MODEL.FPN.P6_FROM_P5"}
READ_ELSEWHERE |= {"PAPER.ROWS", "DATASETS.VOC_DIFFICULT", *(f"MODEL.RESNETS.{key}" for key in DERIVED)}


class Watched(CfgNode):
    """A config that notes which keys are read."""

    read: set[str] = set()

    @classmethod
    def of(cls, config: CfgNode) -> Watched:
        node = cls(config)
        node.name("")
        return node

    def name(self, path: str) -> None:
        self.__dict__["path"] = path
        for key, value in self.items():
            if isinstance(value, Watched):
                value.name(f"{path}{key}.")

    def note(self, name: str) -> None:
        if dict.__contains__(self, name):
            Watched.read.add(self.__dict__.get("path", "") + name)

    def __getattr__(self, name: str):
        self.note(name)
        return super().__getattr__(name)

    def __getitem__(self, name: str):
        self.note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: object = None):
        self.note(name)
        return super().get(name, default)


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> set[str]:
    """The keys that a few small runs read from their configs."""
    Watched.read = set()
    corners = tmp_path_factory.mktemp("corners") / "corners.json"
    files = {"JSON": str(corners), "IMAGES": str(write_corners(corners, 6))}
    custom = {f"DATASETS.CUSTOM.{split}_{part}": file for split in ("TRAIN", "VAL") for part, file in files.items()}
    tested = {key: file for key, file in custom.items() if ".VAL_" in key}
    for number, changes in enumerate((*({**one, **tested} for one in RUNS), {**KEYPOINTS, **custom})):
        folder = str(tmp_path_factory.mktemp("run") / str(number))
        pairs = [item for pair in {**TINY, **changes, "OUTPUT_DIR": folder}.items() for item in pair]
        config = Watched.of(detection.get_config(MINI, pairs))
        config.freeze()
        run(Request(config), Launch(device="cpu", processes=1, machines=1, machine_rank=0, dist_url="auto"))
        assert (Path(folder) / "results.json").is_file()
    return Watched.read


def test_every_key_is_read_or_refused(read):
    keys = dict(flat(default_config()))
    unheard = {key for key in keys if key not in read and instead_of(key) is None} - READ_ELSEWHERE
    assert not unheard, " ".join(sorted(unheard))


KINDS = {
    "fpn": (MINI, ()),
    "c4": ("coco_mask_rcnn_r50.yaml", ("MODEL.BACKBONE.NAME", "resnet18")),
    "res5": ("coco_paper_r101.yaml", ("MODEL.BACKBONE.NAME", "resnet50", "MODEL.ROI_HEADS.NAME", "Res5ROIHeads")),
    "cascade": ("coco_cascade_mask_rcnn_r50_fpn.yaml", ("MODEL.BACKBONE.NAME", "resnet18_fpn")),
    "retinanet": ("coco_retinanet_r50_fpn.yaml", ("MODEL.BACKBONE.NAME", "resnet18_fpn_p6p7")),
}
# Refused by checks of their own, each with words for what stands in for it.
CHECKED = {"MODEL.ROI_BOX_HEAD.GLOBAL_CONTEXT", "MODEL.ROI_BOX_HEAD.MIN_SIZE_TEST"}


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[set[str], CfgNode]]:
    """For each kind of detector, the keys of MODEL that its building reads, and its config."""
    found = {}
    for kind, (name, pairs) in KINDS.items():
        config = detection.get_config(name, ["MODEL.DEVICE", "cpu", *pairs])
        Watched.read = set()
        build(Watched.of(config))
        found[kind] = (Watched.read, config)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_this_kind_of_detector_does_not_read_is_refused_or_noted(kind, built):
    keys = {key for key, _ in flat(default_config())}
    of_any = set().union(*(read for read, _ in built.values())) & keys
    read, config = built[kind]
    left = of_any - read - CHECKED - {f"MODEL.RESNETS.{key}" for key in DERIVED}
    architecture = config.MODEL.META_ARCHITECTURE
    left = {key for key in left if key.startswith("MODEL.") and instead_of(key, architecture) is None}
    lines = [*idle_keys(config, left), *unread_keys(config, left, config)]
    noted = {line.split()[0] for line in lines}
    assert left == noted


@pytest.mark.parametrize(
    ("name", "pairs", "said"),
    [
        (
            "coco_faster_rcnn_r50.yaml",
            ("MODEL.ROI_BOX_HEAD.FC_DIM", 64),
            "the last stage of the network is the box head",
        ),
        ("coco_mask_rcnn_r50.yaml", ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 28), "C4ROIHeads pools once"),
        ("voc_paper_vgg16_07.yaml", ("MODEL.ROI_BOX_HEAD.NUM_FC", 1), "fc6 and fc7 of VGG-16"),
        (
            "coco_cascade_rcnn_r50_fpn.yaml",
            ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0, 1.0)),
            "CASCADE_HEAD",
        ),
    ],
)
def test_what_stands_in_for_a_key_that_the_heads_do_not_read_is_said(name, pairs, said):
    """Of a file as of the command line; another value of the key changes nothing then."""
    lines = unread_keys(detection.get_config(name, pairs), (), default_config())
    assert len(lines) == 1 and lines[0].startswith(f"{pairs[0]} has no effect here; ") and said in lines[0]
    assert unread_keys(detection.get_config(name), (), default_config()) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "MODEL.ROI_BOX_HEAD.CLASS_LOSS sigmoid is the same"),
        ("SOLVER.NUM_DECAYS", 2, "SOLVER.STEPS says when the rate drops"),
    ],
)
def test_a_key_of_another_detectron2_is_refused(key, value, said):
    with pytest.raises(ConfigError, match=f"{key} has no effect here; {said}"):
        detection.get_config(MINI, [key, value])


OTHER = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.5, str: lambda v: v + "x"}


@pytest.mark.parametrize("key", [key for key, _ in flat(get_cfg()) if instead_of(key) is not None])
def test_a_key_that_nothing_reads_is_refused(key):
    value = dict(flat(default_config()))[key]
    other = OTHER[type(value)](value) if type(value) in OTHER else type(value)([*value, *(value[-1:] or ["x"])])
    with pytest.raises(ConfigError, match=re.escape(f"{key} has no effect here; ")):
        detection.get_config(MINI, [key, other])
    detection.get_config(MINI, [key, value])


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            ("MODEL.META_ARCHITECTURE", "PanopticFPN"),
            "is 'PanopticFPN', which cannot be trained here; one of GeneralizedRCNN, RetinaNet",
        ),
        (("MODEL.META_ARCHITECTURE", "FCOS"), "FCOS"),
        (("MODEL.META_ARCHITECTURE", "SemanticSegmentor"), "SemanticSegmentor"),
        (("MODEL.META_ARCHITECTURE", "ProposalNetwork"), "ProposalNetwork"),
        (("MODEL.KEYPOINT_ON", True, "MODEL.ROI_HEADS.NAME", "C4ROIHeads"), "for heads on a pyramid, not C4ROIHeads"),
        (("MODEL.ROI_HEADS.NAME", "RROIHeads"), "cannot be trained here; one of StandardROIHeads, Res5ROIHeads"),
        (("MODEL.ROI_HEADS.NAME", "StandardROIHead"), "did you mean 'StandardROIHeads'?"),
        (("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"), "one of RPN"),
        (("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"), "one of RPN"),
        (("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"), "one of DefaultAnchorGenerator"),
        (("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHed"), "ROI_BOX_HEAD.NAME is 'FastRCNNConvFCHed'"),
        (("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "iou"), "one of smooth_l1, giou, diou, ciou"),
        (("MODEL.FPN.NORM", "Batch"), "MODEL.FPN.NORM is 'Batch'"),
        (("MODEL.ROI_HEADS.NAME", "Res5ROIHeads"), "that of resnet18 is another; C4ROIHeads has the network's own"),
        (("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"), "one of TrainingSampler, Repeat"),
        (("DATALOADER.REPEAT_THRESHOLD", 0.1), "needs DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler"),
        (("INPUT.MIN_SIZE_TEST", -1), "INPUT.MIN_SIZE_TEST must be 0 or more"),
        (("INPUT.MAX_SIZE_TRAIN", 0), "INPUT.MAX_SIZE_TRAIN must be above 0"),
        (("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (80, 64)), "two ends in order"),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupStepWithFixedGammaLR"), "one of WarmupMultiStepLR"),
    ],
)
def test_values_that_the_trainer_cannot_train(pairs, said):
    with pytest.raises(ConfigError) as caught:
        detection.get_config(MINI, pairs)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_keys_of_the_command_line_that_wait_for_another():
    pairs = {"MODEL.ROI_MASK_HEAD.CONV_DIM": 8, "TEST.SOFT_NMS.SIGMA": 0.4, "MODEL.FPN.OUT_CHANNELS": 16}
    pairs |= {"SOLVER.AMP.ENABLED": False, "SOLVER.AMP.DTYPE": "float16"}
    config = detection.get_config(MINI, [item for pair in pairs.items() for item in pair])
    assert idle_keys(config, set(pairs)) == [
        "MODEL.ROI_MASK_HEAD.CONV_DIM has no effect with MODEL.MASK_ON False",
        "SOLVER.AMP.DTYPE has no effect with SOLVER.AMP.ENABLED False",
        "TEST.SOFT_NMS.SIGMA has no effect with TEST.SOFT_NMS.ENABLED False",
    ]


def test_parts_that_others_have_registered_are_theirs():
    from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

    class OwnRCNN(GeneralizedRCNN):
        pass

    META_ARCH_REGISTRY.register(OwnRCNN)
    try:
        assert detection.get_config(MINI, ["MODEL.META_ARCHITECTURE", "OwnRCNN"]).MODEL.META_ARCHITECTURE == "OwnRCNN"
    finally:
        META_ARCH_REGISTRY._obj_map.pop("OwnRCNN")


@pytest.mark.parametrize("make", [default_config, classifiers_config, segmentation_config])
def test_advice_against_divergence_names_keys_that_the_config_has(make):
    config = make()
    remedies = make_settings(config, best="bbox/AP").remedies
    named = re.findall(r"[A-Z]+(?:\.[A-Z_]+)+", remedies)
    assert "SOLVER.BASE_LR" in named and set(named) <= set(dict(flat(config)))
