#!/usr/bin/env python3
"""Show a detector in the browser: drop an image, move the score threshold, see boxes and masks, download JSON.

The same process answers HTTP: POST an image file to /api/detect, and get JSON. Only this machine can reach it, unless
--host says otherwise. Needs gradio: pip install 'resnet-detection[demo]'.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from backbone.common.cli import Parser, run
from backbone.common.errors import UserError
from backbone.common.waiting import say_importing
from backbone.engine.arguments import add_import_argument

EXAMPLE = "tools/demo.py --weights output/quickstart/model_best.pth"


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="a detector, as tools/predict.py takes it: file, name or URL"
    )
    parser.add_argument("--config", metavar="FILE", help="of weights of detectron2 (else its model zoo's is found)")
    parser.add_argument("--score", type=float, default=0.5, metavar="S", help="where the threshold starts (0.5)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="(default: 7860; 0 for any that is free)")
    parser.add_argument("--engine", help="torch, onnxruntime or openvino (else what the suffix of --weights asks for)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    add_import_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys, such as TEST.FLIP True")
    return parser


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    if not 0 <= arguments.score <= 1:
        raise UserError(f"--score: {arguments.score} is no score; give a number from 0 to 1")
    say_importing("gradio", "torch", "detectron2")
    if importlib.util.find_spec("gradio") is None:
        # Said before the detector is read. It is imported later, when it was told to ask nobody anything.
        raise ModuleNotFoundError("no gradio", name="gradio")
    import detection

    detection.register()
    from backbone.engine.extensions import import_modules
    from backbone.engine.record import start_logging
    from detection.inference.demo import address_of, how_to_post, is_local, listen, serve

    start_logging(None)
    listening = listen(arguments.host, arguments.port)
    import_modules(arguments.imports)
    detector = detection.load(
        arguments.weights,
        arguments.device,
        engine=arguments.engine,
        config=arguments.config,
        overrides=arguments.overrides,
    )
    address = address_of(listening)
    print(f"{address}  (Ctrl-C ends it)\nHTTP: {how_to_post(address, arguments.score)}", flush=True)
    if not is_local(listening.getsockname()[0]):
        print(f"--host {arguments.host}: whoever reaches this machine can use the demo; it asks for no password")
    serve(detector, listening, score=arguments.score, title=f"Detections of {Path(arguments.weights).name}")


if __name__ == "__main__":
    run(main)
