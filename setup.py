"""Distribution of `backbone`, `detection` and the commands. Ranges stand here; constraints.txt pins the tested set."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HOME = Path(__file__).resolve().parent
# The core: `import backbone` creates, loads, saves and folds networks.
CORE = ["torch>=2.4,<3", "torchvision>=0.19", "numpy>=1.24", "safetensors>=0.4"]
# What trains, tests and predicts. detectron2 itself has no package: `resnet-detection install-detectron2` adds it.
DETECTION = [
    "fvcore>=0.1.5.post20221221",
    "hotcoco>=1.3",
    "opencv-python-headless>=4.8",
    "orjson>=3.9",
    "pycocotools>=2.0.7",
    "PyYAML>=6",
    "tensorboard>=2.14",
    "tqdm>=4.66",
    "yacs>=0.1.8",
]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3", "openvino>=2024.4"]
FIGURES = ["matplotlib>=3.8"]
# Optional: 9 % off the decoding of JPEG files, the same pixels.
FAST = ["simplejpeg>=1.8"]
# Loggers of LOGGERS.
WANDB = ["wandb>=0.17"]
MLFLOW = ["mlflow-skinny>=2.10", "pillow"]
# The page of `resnet-detection demo`. fastapi and uvicorn come with it.
DEMO = ["gradio>=6"]
# The tests compare with these projects' own networks and numbers, and build the wheel. tools/install_mmdetection.py
# adds MMDetection, which no list of requirements can name: it comes without its dependencies and its compiled part.
PEERS = ["faster-coco-eval>=1.6", "scipy>=1.11", "timm>=1.0", "transformers>=4.50"]
BUILD = ["setuptools>=70.1,<82"]
TESTS = ["pytest>=8", "pytest-xdist>=3", "ruff>=0.6", *BUILD, *PEERS, *DETECTION, *EXPORT, *FIGURES, *FAST]

# The folders of the checkout that a wheel holds under another name.
RENAMED = {"resnet_detection": "tools", "resnet_detection.configs": "configs"}
LIBRARIES = ("backbone", "detection", "reproduction")
CHECKOUT_ONLY = ("benchmark", "install_mmdetection", "make_env")


class BuildCommands(build_py):
    """Leaves out the tools that work on a checkout alone."""

    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        return [found for found in modules if package != "resnet_detection" or found[1] not in CHECKOUT_ONLY]


setup(
    name="resnet-detection",
    version=re.search(r'^__version__ = "(.+)"$', (HOME / "backbone/__init__.py").read_text(encoding="utf-8"), re.M)[1],
    description="ResNet backbones for detection and segmentation, and the ResNet paper's experiments on detectron2",
    long_description=(HOME / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    packages=[*find_packages(include=[*LIBRARIES, *(f"{name}.*" for name in LIBRARIES)]), *RENAMED],
    package_dir=RENAMED,
    package_data={"resnet_detection.configs": ["*.yaml", "*/*.yaml"], "backbone.networks.winograd": ["*.cpp"]},
    cmdclass={"build_py": BuildCommands},
    entry_points={"console_scripts": ["resnet-detection = resnet_detection.command:main"]},
    install_requires=CORE,
    extras_require={
        "detection": DETECTION,
        "export": EXPORT,
        "figures": FIGURES,
        "fast": FAST,
        "wandb": WANDB,
        "mlflow": MLFLOW,
        "demo": DEMO,
        "test": TESTS,
    },
)
