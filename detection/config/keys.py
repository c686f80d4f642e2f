"""Keys of detectron2's config that a run here cannot obey: refused, so that no change goes unheard in silence."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from detectron2.config import CfgNode

from backbone import ConfigError
from backbone.engine.config import flat, get

from .names import P6P7_SUFFIX, RETINANET, is_retinanet

# A key, or a section with a dot behind its name, that nothing here reads, and what stands in for it.
UNUSED = {
    "VERSION": "configs here are of version 2; detectron2.config.upgrade_config converts one of version 1",
    "MODEL.LOAD_PROPOSALS": "proposals come from the RPN",
    "MODEL.SEM_SEG_HEAD.": "tools/train_segmentation.py trains semantic segmentation",
    "MODEL.PANOPTIC_FPN.": "panoptic segmentation is not supported",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "rotated boxes are not supported",
    "MODEL.RESNETS.RES5_DILATION": "MODEL.BACKBONE.OUTPUT_STRIDE 16 with MODEL.BACKBONE.DILATION_STYLE mmdetection "
    "dilates the last stage as detectron2 does",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "MODEL.BACKBONE.NAME decides",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": "deformable convolution is not supported",
    "MODEL.RESNETS.DEFORM_MODULATED": "deformable convolution is not supported",
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": "deformable convolution is not supported",
    "DATASETS.PROPOSAL_FILES_TRAIN": "proposals come from the RPN",
    "DATASETS.PROPOSAL_FILES_TEST": "proposals come from the RPN",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": "proposals come from the RPN, MODEL.RPN.POST_NMS_TOPK_TRAIN of them",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": "proposals come from the RPN, MODEL.RPN.POST_NMS_TOPK_TEST of them",
    "SOLVER.REFERENCE_WORLD_SIZE": "SOLVER.REFERENCE_BATCH_SIZE scales the schedule",
    "TEST.EXPECTED_RESULTS": "compare with the figures in results.json",
    "TEST.PRECISE_BN.": "not supported in detection; backbones bring their statistics",
    "VIS_PERIOD": "TensorBoard has the first training images, and detections of every evaluation",
    "GLOBAL.": "no part of the detector reads it",
    # Of detectron2's main branch.
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": "federated loss is not supported",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": "MODEL.ROI_BOX_HEAD.CLASS_LOSS sigmoid is the same",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": "federated loss is not supported",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": "federated loss is not supported",
    "SOLVER.BASE_LR_END": "WarmupCosineLR ends at 0",
    "SOLVER.NUM_DECAYS": "SOLVER.STEPS says when the rate drops",
    "SOLVER.RESCALE_INTERVAL": "SOLVER.STEPS says when the rate drops",
}
# The same, by MODEL.META_ARCHITECTURE.
WITHOUT_REGIONS = "RetinaNet has neither an RPN nor heads on regions"
UNUSED_BY = {
    "GeneralizedRCNN": {"MODEL.RETINANET.": "MODEL.META_ARCHITECTURE RetinaNet reads it"},
    RETINANET: {
        **dict.fromkeys(("MODEL.RPN.", "MODEL.PROPOSAL_GENERATOR.", "MODEL.ROI_HEADS."), WITHOUT_REGIONS),
        **dict.fromkeys(("MODEL.ROI_BOX_HEAD.", "MODEL.ROI_BOX_CASCADE_HEAD."), WITHOUT_REGIONS),
        **dict.fromkeys(("SOLVER.CLASS_WEIGHTS", "SOLVER.CLASS_BALANCE"), "RetinaNet's focal loss has its own balance"),
        **dict.fromkeys(("MODEL.MASK_ON", "MODEL.ROI_MASK_HEAD."), "RetinaNet has no masks"),
        **dict.fromkeys(("MODEL.KEYPOINT_ON", "MODEL.ROI_KEYPOINT_HEAD."), "RetinaNet has no keypoints"),
    },
}
# Keys that nothing reads with a MODEL.ROI_HEADS.NAME, and why. They are noted and not refused: one file of small widths
# may serve several heads.
_LAYERS = tuple(f"MODEL.ROI_BOX_HEAD.{key}" for key in ("NAME", "NUM_FC", "FC_DIM", "NUM_CONV", "CONV_DIM", "NORM"))
_POOLERS = tuple(f"MODEL.ROI_MASK_HEAD.POOLER_{key}" for key in ("TYPE", "RESOLUTION", "SAMPLING_RATIO"))
_LAST_STAGE = {
    **dict.fromkeys(_LAYERS, "the last stage of the network is the box head of {heads}"),
    **dict.fromkeys(_POOLERS, "{heads} pools once, as MODEL.ROI_BOX_HEAD says"),
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": "{heads} has one pooling for boxes and masks",
}
UNUSED_BY_HEADS = {
    "C4ROIHeads": _LAST_STAGE,
    "Res5ROIHeads": _LAST_STAGE,
    "VGGROIHeads": dict.fromkeys(_LAYERS, "fc6 and fc7 of VGG-16 are the box head of {heads}"),
    "CascadeROIHeads": {
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS has those of each stage",
        "MODEL.ROI_HEADS.IOU_LABELS": "MODEL.ROI_BOX_CASCADE_HEAD.IOUS divides objects from background in each stage",
        "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": "each stage trains on the boxes of the one before",
    },
}
# What of detectron2's registries the trainer can train. What others have registered is theirs to answer for.
SUPPORTED = {
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN", RETINANET),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"),
}
HEADS_WITH_BOX_HEAD = ("StandardROIHeads", "CascadeROIHeads", "RegionROIHeads")
FEATURE_KEYS = tuple(f"MODEL.{part}.IN_FEATURES" for part in ("FPN", "RPN", "ROI_HEADS", "RETINANET"))
LOSSES = ("smooth_l1", "giou", "diou", "ciou")
# Those that detectron2.layers.get_norm knows by name.
NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
CHOICES = {
    "DATALOADER.SAMPLER_TRAIN": ("TrainingSampler", "RepeatFactorTrainingSampler"),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.FPN.NORM": NORMS,
    "MODEL.ROI_BOX_HEAD.NORM": NORMS,
    "MODEL.ROI_MASK_HEAD.NORM": NORMS,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": LOSSES,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": LOSSES,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": ("ROIAlignV2", "ROIAlign", "ROIPool"),
    "FLOAT32_PRECISION": ("", "highest", "high", "medium"),
}


def choices_of(config: CfgNode, source: str) -> dict[str, tuple[str, ...]]:
    """Return the choices of detectron2's keys; of names in its registries, those that can be trained here.

    Raises:
        ConfigError: the config names another of them.
    """
    from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY
    from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY
    from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
    from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY
    from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, ROI_KEYPOINT_HEAD_REGISTRY, ROI_MASK_HEAD_REGISTRY

    registries = (META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, ANCHOR_GENERATOR_REGISTRY, ROI_HEADS_REGISTRY)
    found = {key: choices for key, choices in CHOICES.items() if key in dict(flat(config))}
    for (key, names), registry in zip(SUPPORTED.items(), registries):
        own = [name for name, part in registry if not part.__module__.startswith("detectron2.")]
        found[key] = (*names, *own)
        value = get(config, key)
        if value in registry and value not in found[key]:
            raise ConfigError(
                f"{source}: {key} is {value!r}, which cannot be trained here; one of {', '.join(found[key])}"
            )
    if is_retinanet(config):
        return found | {"MODEL.RETINANET.NORM": NORMS, "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": LOSSES}
    found["MODEL.RPN.HEAD_NAME"] = tuple(name for name, _ in RPN_HEAD_REGISTRY)
    if config.MODEL.ROI_HEADS.NAME in HEADS_WITH_BOX_HEAD:
        found["MODEL.ROI_BOX_HEAD.NAME"] = tuple(name for name, _ in ROI_BOX_HEAD_REGISTRY)
    if config.MODEL.MASK_ON:
        found["MODEL.ROI_MASK_HEAD.NAME"] = tuple(name for name, _ in ROI_MASK_HEAD_REGISTRY)
    if config.MODEL.KEYPOINT_ON:
        found["MODEL.ROI_KEYPOINT_HEAD.NAME"] = tuple(name for name, _ in ROI_KEYPOINT_HEAD_REGISTRY)
    return found


def instead_of(key: str, architecture: str = "GeneralizedRCNN") -> str | None:
    """Return what stands in for a key that nothing reads, with that MODEL.META_ARCHITECTURE; None for the others."""
    sections = [key[: place + 1] for place, letter in enumerate(key) if letter == "."]
    unused = UNUSED | UNUSED_BY.get(architecture, {})
    return next((unused[name] for name in (key, *sections) if name in unused), None)


def refuse_newer(keys: Iterable[str], config: CfgNode, source: str) -> None:
    """Raise ConfigError for a key of another detectron2 than the installed one, which the `config` does not have."""
    known = dict(flat(config))
    for key in keys:
        if key not in known and key in UNUSED:
            raise ConfigError(f"{source}: {key} has no effect here; {UNUSED[key]}")


def refuse_unused(config: CfgNode, before: CfgNode, source: str) -> None:
    """Raise ConfigError for a key that nothing here reads and that has another value than `before`."""
    former, architecture = dict(flat(before)), config.MODEL.META_ARCHITECTURE
    for key, value in flat(config):
        if value != former.get(key) and (instead := instead_of(key, architecture)) is not None:
            raise ConfigError(f"{source}: {key} has no effect here; {instead}")
    loader = config.DATALOADER
    if loader.REPEAT_THRESHOLD and loader.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        raise ConfigError(
            f"{source}: DATALOADER.REPEAT_THRESHOLD {loader.REPEAT_THRESHOLD} needs "
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler"
        )


def idle_keys(config: CfgNode, given: Collection[str]) -> list[str]:
    """Return a line for each key of the command line that has no effect while another is as it is."""
    needs = {
        "MODEL.ROI_MASK_HEAD.": ("MODEL.MASK_ON", config.MODEL.MASK_ON),
        "MODEL.ROI_KEYPOINT_HEAD.": ("MODEL.KEYPOINT_ON", config.MODEL.KEYPOINT_ON),
        "TEST.KEYPOINT_OKS_SIGMAS": ("MODEL.KEYPOINT_ON", config.MODEL.KEYPOINT_ON),
        "MODEL.ROI_BOX_CASCADE_HEAD.": ("MODEL.ROI_HEADS.NAME", config.MODEL.ROI_HEADS.NAME == "CascadeROIHeads"),
        **dict.fromkeys(
            ("MODEL.FPN.P6_FROM_P5", "MODEL.FPN.RELU_BEFORE_P7"),
            ("MODEL.BACKBONE.NAME", P6P7_SUFFIX in config.MODEL.BACKBONE.NAME),
        ),
        "MODEL.FPN.": ("MODEL.BACKBONE.NAME", "_fpn" in config.MODEL.BACKBONE.NAME),
        "INPUT.MASK_FORMAT": ("MODEL.MASK_ON", config.MODEL.MASK_ON),
        "SOLVER.FAST_RCNN_IMAGES": ("SOLVER.SCHEME", config.SOLVER.SCHEME == "alternating"),
        **dict.fromkeys(
            ("SOLVER.STEPS", "SOLVER.GAMMA"),
            ("SOLVER.LR_SCHEDULER_NAME", config.SOLVER.LR_SCHEDULER_NAME != "WarmupCosineLR"),
        ),
        "TEST.PATIENCE": ("TEST.EVAL_PERIOD", config.TEST.EVAL_PERIOD > 0),
        **dict.fromkeys(
            ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN"),
            ("INPUT.LARGE_SCALE_JITTER.ENABLED", not config.INPUT.LARGE_SCALE_JITTER.ENABLED),
        ),
    }
    focal = ("MODEL.ROI_BOX_HEAD.CLASS_LOSS", config.MODEL.ROI_BOX_HEAD.CLASS_LOSS == "focal")
    needs["MODEL.ROI_BOX_HEAD.FOCAL_"] = focal
    for key, value in flat(config):
        if key.endswith(".ENABLED"):
            needs[key.removesuffix("ENABLED")] = (key, value)
    found = []
    for key in sorted(given):
        switch = next((of for section, of in needs.items() if key.startswith(section) and key != of[0]), None)
        if switch is not None and not switch[1]:
            found.append(f"{key} has no effect with {switch[0]} {get(config, switch[0])}")
    return found


def unread_keys(config: CfgNode, given: Collection[str], usual: CfgNode) -> list[str]:
    """Return a line for each key of the command line, or with another value than the `usual` config's, that the heads
    do not read.
    """
    heads = config.MODEL.ROI_HEADS.NAME
    unread = {} if is_retinanet(config) else UNUSED_BY_HEADS.get(heads, {})
    changed = [key for key in unread if key in given or get(config, key) != get(usual, key)]
    return [f"{key} has no effect here; {unread[key].format(heads=heads)}" for key in changed]
