"""The keys that this project adds to detectron2's config, and the defaults that differ from detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from backbone.engine.class_weights import add_class_weights
from backbone.engine.defaults import add_color_jitter, add_shared_defaults
from backbone.engine.extensions import add_keys


def default_config() -> CfgNode:
    """Return a fresh, unfrozen config with detectron2's keys, ours and those of `extensions.extend_config`."""
    config = get_cfg()
    add_defaults(config)
    return add_keys(config)


def add_defaults(config: CfgNode) -> None:
    """Add our keys, with their defaults, to a detectron2 config in place."""
    add_shared_defaults(config)
    model = config.MODEL
    # A backbone of `backbone.list_backbones()`, or one with `_fpn` behind its name.
    model.BACKBONE.NAME = "resnet50_fpn"
    # 32, 16 or 8: dilation stands in for the strides left out.
    model.BACKBONE.OUTPUT_STRIDE = 32
    # "torchvision", or "mmdetection" as detectron2's RES5_DILATION: the first block of a dilated stage is dilated too.
    model.BACKBONE.DILATION_STYLE = "torchvision"
    # "conv7", or "deep" for three 3x3 convolutions (ResNet-C and -D).
    model.BACKBONE.STEM = "conv7"
    # "A", "B" or "C" of the paper, "" for the network's own.
    model.BACKBONE.SHORTCUT = ""
    # Average pooling before the 1x1 convolution of a shortcut, instead of a stride in it (ResNet-D).
    model.BACKBONE.AVERAGE_DOWN = False
    # Pooling that rounds its output up and does not pad, as Caffe's; the authors' released weights ask for it.
    model.BACKBONE.CEIL_POOL = False
    # Added to the variance in the norms of the network. torchvision's first detectors on COCO have 0.
    model.BACKBONE.NORM_EPS = 1e-5
    # Pad images below and on the right to a multiple of that many pixels; a pyramid does so to its own one in any case.
    model.BACKBONE.SIZE_DIVISIBILITY = 0
    # Recompute each residual block in the backward pass: less memory, more time.
    model.BACKBONE.CHECKPOINTING = False
    # "FrozenBN", "BN", "SyncBN" or "GN".
    model.RESNETS.NORM = "FrozenBN"
    # Images of the training set from which frozen BN takes its statistics when there are no weights to take them from.
    model.BACKBONE.CALIBRATION_IMAGES = 8
    # A ReLU between P6 and P7 of RetinaNet's pyramid; MMDetection has none.
    model.FPN.RELU_BEFORE_P7 = True
    # Cut RetinaNet's boxes to their image before NMS, as torchvision and MMDetection, not behind it, as detectron2.
    model.RETINANET.CLIP_BEFORE_NMS = False
    # Pool the whole image as one more region; its feature stands beside each region's in the sibling layers.
    model.ROI_BOX_HEAD.GLOBAL_CONTEXT = False
    # Of the pyramid of RetinaNet: P6 stands on P5, and not on the network's last map.
    model.FPN.P6_FROM_P5 = False
    # Boxes with a shorter side, in pixels of the resized image, are dropped before NMS in a test; torchvision has 0.01.
    model.ROI_BOX_HEAD.MIN_SIZE_TEST = 0.0
    # Of the class scores of regions: "softmax"; "sigmoid", each class for itself (USE_SIGMOID_CE of detectron2's main
    # branch); "focal", that times (1 - p)^FOCAL_GAMMA, p the probability of the right answer (Lin et al., 2017).
    model.ROI_BOX_HEAD.CLASS_LOSS = "softmax"
    # Of the focal loss: 0 for none of it.
    model.ROI_BOX_HEAD.FOCAL_GAMMA = 2.0
    # Of the focal loss: weight of a region's own class; all others have 1 less this weight; -1: each has 1.
    model.ROI_BOX_HEAD.FOCAL_ALPHA = 0.25
    # As in torchvision's weights; a weights file that was made otherwise sets this and the preprocessing.
    model.RESNETS.STRIDE_IN_1X1 = False
    # Train with torch.compile of the network with its pyramid, of conv5 on regions and of the box head.
    model.COMPILE = False

    # Resize the images of a test by Pillow itself, as detectron2: equal to the last level, but slower. Without, 1 of
    # 1,000 values is one level off.
    config.INPUT.EXACT_RESIZE = False
    # Resize images as torchvision's detectors do, in training and tests: between the four nearest pixels, which are not
    # averaged where the image shrinks, in float, and to a side that is rounded down.
    config.INPUT.FLOAT_RESIZE = False

    _add_augmentation(config.INPUT)
    # Fit the sizes of training and test to images that are smaller: 1.25 times the median of their shorter sides.
    config.INPUT.AUTO_SIZE = False

    # Root of the data sets in their official layouts; `--data-root` sets it.
    config.DATASETS.ROOT = ""
    # The sets that `--train-json` and its siblings describe, under the names custom_train and custom_val.
    custom = config.DATASETS.CUSTOM = CfgNode(
        {"TRAIN_JSON": "", "TRAIN_IMAGES": "", "VAL_JSON": "", "VAL_IMAGES": ""},
    )
    # A file or folder of a set for training, in any form (docs/own_data.md); `--train` sets it.
    custom.TRAIN = ""
    # The same for validation; `--val` sets it.
    custom.VAL = ""
    # Share of the training images that is held out for validation, chosen by SEED; 0 for none. `--split` sets it.
    custom.SPLIT = 0.0
    # Classes in their order, for forms that name the class at each object (VOC, CSV); () for those of the training set.
    custom.CLASSES = ()
    # Boxes without area, with NaN or wholly outside their image: "refuse" the set, "skip" the box and count it, or
    # "auto": skip in the official sets (COCO has such boxes), refuse in one's own.
    config.DATASETS.BAD_BOXES = "auto"
    # Where sets in COCO form are kept as arrays, once they are read and checked: a folder; "auto": the user's cache
    # folder, for JSON files of 16 MiB or more; "off": nowhere. `--data-cache` sets it.
    config.DATASETS.CACHE = "auto"
    # Train on the objects that PASCAL VOC marks difficult; without, they are left out. Evaluation ignores them always.
    config.DATASETS.VOC_DIFFICULT = False
    # Training images that may be unreadable, and are replaced by others, before the run stops; each counts once.
    config.DATASETS.MAX_BAD_IMAGES = 100

    solver = config.SOLVER
    add_class_weights(solver)
    # Take the batch that the free memory holds, at most REFERENCE_BATCH_SIZE and a fiftieth of the training images.
    solver.AUTO_BATCH = False
    # Images a step for which BASE_LR, STEPS, MAX_ITER and the warm-up were chosen; see AUTO_SCALE.
    solver.REFERENCE_BATCH_SIZE = 16
    # "joint", or "alternating": the four steps of Faster R-CNN, each with this schedule.
    solver.SCHEME = "joint"
    # Of SCHEME alternating: the steps of Fast R-CNN take that many times the images, each with that share of the
    # regions, at the same rate. Ren et al. take 1 image for the RPN, and 2 with 64 regions each for Fast R-CNN.
    solver.FAST_RCNN_IMAGES = 1

    # "auto", "hotcoco", "faster-coco-eval" or "pycocotools".
    config.TEST.EVAL_ENGINE = "auto"
    # The loss on the test sets too, with each evaluation: "validation" in metrics.jsonl. It takes a further pass.
    config.TEST.LOSS = False
    # The figure by which the best weights are chosen, and that TEST.PATIENCE waits for, as it stands in metrics.jsonl:
    # "bbox/AP50", "segm/AP" or, with TEST.LOSS, "validation/total_loss"; "" for the AP of boxes. Of several test sets,
    # it is the first one's.
    config.TEST.BEST = ""
    # Of inference: "float32", "bfloat16" or "float16"; boxes, proposals and scores stay float32.
    config.TEST.PRECISION = "float32"
    # Pass the network through torch.compile where no training runs; the first images of each size take long.
    config.TEST.COMPILE = False
    # Images of one shape that are detected together; 0: 4 on a GPU, one by one on a CPU, where more is no faster.
    config.TEST.BATCH_SIZE = 0
    # Pictures of detections written after the last evaluation.
    config.TEST.PICTURES = 12
    # Least score of a box in those pictures.
    config.TEST.PICTURE_SCORE = 0.5
    _add_methods(config.TEST)


def _add_augmentation(inputs: CfgNode) -> None:
    """Add how training samples are varied, beside detectron2's sizes, flips and INPUT.CROP (docs/training.md)."""
    add_color_jitter(inputs)
    # In place of MIN_SIZE_TRAIN and MAX_SIZE_TRAIN: each image is fitted into SIZE (height, width) times a factor drawn
    # from SCALE, then cut or filled up to SIZE (Ghiasi et al., 2021; theirs is 0.1 to 2 of 1024).
    inputs.LARGE_SCALE_JITTER = CfgNode({"ENABLED": False, "SCALE": (0.1, 2.0), "SIZE": (1024, 1024)})
    # With the probability PROB, four images, each at a factor drawn from SCALE of its size, share the size of the
    # first: below 1, more of each is seen. Objects of which less than LEAST_SHOWN of the box is seen are no targets.
    inputs.MOSAIC = CfgNode({"ENABLED": False, "PROB": 0.5, "SCALE": (0.5, 1.0), "LEAST_SHOWN": 0.1})
    # With the probability PROB, objects of another image, each with the probability SHARE, are pasted by their masks
    # (Ghiasi et al., 2021); for detectors with masks.
    inputs.COPY_PASTE = CfgNode({"ENABLED": False, "PROB": 0.5, "SHARE": 0.5})


def _add_methods(test: CfgNode) -> None:
    """Add what a test may do beyond one forward pass; detectron2's TEST.AUG joins the detections of several sizes."""
    # A second pass from the regressed boxes; the predictions of both are joined, with this IoU for NMS.
    test.BOX_REFINEMENT = CfgNode({"ENABLED": False, "NMS": 0.3})
    # Each kept box becomes the mean, weighted by score, of the boxes of its class with this IoU or more.
    test.BOX_VOTING = CfgNode({"ENABLED": False, "IOU": 0.5})
    # Regions are pooled from the two of these shorter sides that bring them nearest to 224 x 224 pixels, and merged by
    # their maximum; proposals come from INPUT.MIN_SIZE_TEST.
    test.MULTI_SCALE = CfgNode({"ENABLED": False, "SIDES": (200, 400, 600, 800, 1000)})
    # Average probabilities and boxes with those of the mirrored image; proposals of both.
    test.FLIP = False
    # Checkpoints tested together with the weights: proposals of all, probabilities and boxes averaged.
    test.ENSEMBLE = ()
    # In the place of NMS: METHOD "gaussian" or "linear"; boxes whose decayed score is below LEAST_SCORE are dropped.
    test.SOFT_NMS = CfgNode({"ENABLED": False, "METHOD": "gaussian", "SIGMA": 0.5, "LEAST_SCORE": 0.001})
