#!/usr/bin/env python3
"""Train and evaluate a detector from a config."""

from __future__ import annotations

from backbone.cli import Parser, run
from backbone.engine.distributed import Launch

EXAMPLE = (
    "tools/train_net.py --config coco_faster_rcnn_r101.yaml --data-root /data --weights resnet101.pth --num-gpus 8"
)


def make_parser() -> Parser:
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--config", required=True, metavar="FILE", help="a path, or the name of a file in configs/")
    parser.add_argument(
        "--data-root", metavar="DIR", help="root of the data sets (else $DETECTRON2_DATASETS, ./datasets)"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="run folder (else output/<config>)")
    parser.add_argument("--weights", metavar="FILE", help="start from (or evaluate) these weights")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    parser.add_argument("--force", action="store_true", help="resume although the config has changed")
    parser.add_argument("--overwrite", action="store_true", help="throw away a former run in the run folder")
    parser.add_argument("--eval-only", action="store_true", help="evaluate --weights, do not train")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of everything random (else the config's SEED)")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    processes = parser.add_mutually_exclusive_group()
    processes.add_argument("--num-gpus", type=int, metavar="N", help="processes on this machine, one a GPU")
    processes.add_argument("--num-processes", type=int, metavar="N", help="the same, on a CPU too")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N")
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0")
    own = parser.add_argument_group("your own data, in COCO form; classes follow from the JSON")
    for split in ("train", "val"):
        own.add_argument(f"--{split}-json", metavar="FILE")
        own.add_argument(f"--{split}-images", metavar="DIR")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys, such as SOLVER.MAX_ITER 1000")
    return parser


def main() -> None:
    arguments = make_parser().parse_intermixed_args()
    # Behind the parser: --help and a wrong flag answer at once.
    import detection

    detection.register()
    from detection.engine.request import make_request
    from detection.engine.session import run as train

    request = make_request(arguments)
    train(
        request,
        Launch(
            device=request.config.MODEL.DEVICE,
            processes=next((n for n in (arguments.num_gpus, arguments.num_processes) if n is not None), 1),
            machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
        ),
    )


if __name__ == "__main__":
    run(main)
