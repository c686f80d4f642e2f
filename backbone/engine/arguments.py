"""Flags that every tool that trains has, and what they come to."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.cli import Parser
from ..common.waiting import say_importing
from .config import check_pairs
from .extensions import import_modules

if TYPE_CHECKING:
    from .processes import Launch
    from .session import Request

# The module with `make_request` and `run` of each tool that trains.
SESSIONS = {
    "train_net.py": "detection.engine.session",
    "train_segmentation.py": "backbone.segmentation.session",
    "train_localization.py": "backbone.localization.session",
    "pretrain.py": "backbone.classification.session",
}


def add_run_arguments(parser: Parser) -> None:
    """Add the flags of a run, and the trailing overrides."""
    parser.add_argument("--config", required=True, metavar="FILE", help="a path, or the name of a file in configs/")
    parser.add_argument(
        "--data-root", metavar="DIR", help="root of the data sets (else $DETECTRON2_DATASETS, ./datasets)"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="run folder (else output/<config>)")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="start from (or evaluate) these weights: a file, a name (tools/weights.py) or a URL",
    )
    parser.add_argument("--part", metavar="NAME", help="which of several networks in --weights, such as model_ema")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    parser.add_argument("--force", action="store_true", help="resume although the config has changed")
    parser.add_argument("--overwrite", action="store_true", help="throw away a former run in the run folder")
    parser.add_argument("--eval-only", action="store_true", help="evaluate --weights, do not train")
    parser.add_argument("--plan", action="store_true", help="print the plan, expected time and memory, and stop")
    parser.add_argument(
        "--draw", metavar="DIR", help="draw the first training batches as the network gets them, and stop"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of everything random (else the config's SEED)")
    parser.add_argument(
        "--seeds", nargs="+", metavar="N", help="train once with each, into OUTPUT_DIR/seedN; mean and deviation"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(else a GPU if there is one)")
    processes = parser.add_mutually_exclusive_group()
    processes.add_argument("--num-gpus", type=int, metavar="N", help="processes on this machine, one a GPU")
    processes.add_argument("--num-processes", type=int, metavar="N", help="the same, on a CPU too")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N")
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0")
    add_import_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config keys, such as SOLVER.MAX_ITER 1000")


def add_import_argument(parser: Parser) -> None:
    """Add the flag that names modules of the user's own."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module of your own (networks, heads, data sets, hooks, transforms); may be repeated",
    )


def given_keys(arguments: Namespace) -> frozenset[str]:
    """Return the config keys on the command line.

    Raises:
        ConfigError: the last one has no value.
    """
    check_pairs(arguments.overrides)
    return frozenset(arguments.overrides[::2])


def overrides_of(arguments: Namespace, *, root_key: str) -> list[object]:
    """Return KEY, VALUE, ... of the shared flags and the trailing pairs; `root_key` is the one of --data-root.

    The modules of --import are imported first: the config may have keys and names of theirs.

    Raises:
        ConfigError: the last trailing key has no value, or a module cannot be imported.
    """
    from .session import default_output

    import_modules(arguments.imports)

    check_pairs(arguments.overrides)
    overrides: list[object] = list(arguments.overrides)
    for value, key in (
        (arguments.data_root, root_key),
        (arguments.weights, "MODEL.WEIGHTS"),
        (arguments.part, "MODEL.WEIGHTS_PART"),
        (arguments.seed, "SEED"),
    ):
        if value is not None:
            overrides += [key, value]
    if arguments.device is not None:
        overrides += ["MODEL.DEVICE", arguments.device]
    elif arguments.num_gpus is not None and "MODEL.DEVICE" not in given_keys(arguments):
        # Whoever counts GPUs wants no CPU run without being told.
        overrides += ["MODEL.DEVICE", "cuda"]
    folder = arguments.output_dir or default_output(arguments.config, eval_only=arguments.eval_only)
    return overrides + ["OUTPUT_DIR", folder]


def request_of(arguments: Namespace, config: Any, **more: Any) -> Request:
    """Return the request of the shared flags; `more` are fields that the tool has beside them."""
    from .session import Request

    sweep = getattr(arguments, "sweep", None)
    flags = {name: getattr(arguments, name) for name in ("resume", "eval_only", "force", "overwrite")}
    return Request(
        config=config,
        given=given_keys(arguments),
        draw=None if arguments.draw is None else Path(arguments.draw),
        plan_only=arguments.plan or sweep is not None,
        sweep=sweep,
        imports=tuple(arguments.imports),
        **flags,
        **more,
    )


def train(parser: Parser, tool: str) -> None:
    """Parse the command line of a tool that trains, and do what it asks for.

    Args:
        tool: its file in tools/, one of SESSIONS.
    """
    arguments = parser.parse_intermixed_args()
    if arguments.seeds:
        from .seeds import run_seeds

        run_seeds(arguments, tool)
        return
    start(arguments, tool)


def start(arguments: Namespace, tool: str) -> None:
    """Train, test or plan, as parsed arguments say."""
    # Behind the parser: --help and a wrong flag answer at once.
    say_importing("torch", *(["detectron2"] if SESSIONS[tool].startswith("detection") else []))
    session = importlib.import_module(SESSIONS[tool])
    request = session.make_request(arguments)
    session.run(request, launch_of(arguments, request.config.MODEL.DEVICE))


def launch_of(arguments: Namespace, device: str) -> Launch:
    """Return the processes that the flags ask for, or of which srun has started this one."""
    from . import slurm
    from .processes import Launch

    if arguments.num_machines == 1 and arguments.dist_url == "auto":
        slurm.take_over()
    return Launch(
        device=device,
        processes=next((n for n in (arguments.num_gpus, arguments.num_processes) if n is not None), None),
        machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
    )
