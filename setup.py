"""Distribution of `backbone` and `detection`. Ranges stand here; constraints.txt pins the set the tests ran on."""

from pathlib import Path

from setuptools import find_packages, setup

TORCH = ["torch>=2.4,<3", "torchvision>=0.19"]
# What backbone/ and the command lines need. detectron2 itself has no package: tools/install_detectron2.py adds it.
REQUIRED = [
    "fvcore>=0.1.5.post20221221",
    "hotcoco>=1.3",
    "numpy>=1.24",
    "opencv-python-headless>=4.8",
    "orjson>=3.9",
    "pycocotools>=2.0.7",
    "PyYAML>=6",
    "safetensors>=0.4",
    "tensorboard>=2.14",
    "tqdm>=4.66",
    "yacs>=0.1.8",
]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3", "openvino>=2024.4"]
FIGURES = ["matplotlib>=3.8"]
# Optional: 9 % off the decoding of JPEG files, the same pixels.
FAST = ["simplejpeg>=1.8"]
# The tests compare with these projects' own networks and numbers.
PEERS = ["faster-coco-eval>=1.6", "scipy>=1.11", "timm>=1.0", "transformers>=4.50"]
TESTS = ["pytest>=8", "pytest-xdist>=3", "ruff>=0.6", *PEERS, *EXPORT, *FIGURES, *FAST]

setup(
    name="resnet-detection",
    version="0.1.0",
    description="ResNet backbones for detection and segmentation, and the ResNet paper's experiments on detectron2",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["backbone", "backbone.*", "detection", "detection.*", "reproduction"]),
    install_requires=TORCH + REQUIRED,
    extras_require={"export": EXPORT, "figures": FIGURES, "fast": FAST, "test": TESTS},
)
