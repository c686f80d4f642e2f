"""From what stands on the command line to a Request."""

from __future__ import annotations

from argparse import Namespace

from ..common.errors import ConfigError
from ..engine.arguments import given_keys, overrides_of
from ..engine.session import Request
from .config import PROTOCOLS, check_tests, load_config


def make_request(arguments: Namespace) -> Request:
    """Return the request of tools/pretrain.py's arguments.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    overrides = overrides_of(arguments, root_key="DATA.ROOT")
    if arguments.ensemble:
        if not arguments.eval_only:
            raise ConfigError("--ensemble is for --eval-only: it averages trained networks")
        overrides += ["MODEL.ENSEMBLE", tuple(arguments.ensemble)]
    config = load_config(arguments.config, overrides)
    if config.MODEL.NEW_CLASSIFIER and arguments.eval_only:
        raise ConfigError("MODEL.NEW_CLASSIFIER begins a training; --eval-only tests a classifier that is trained")
    tests = _protocols(arguments.protocol or [], config)
    # Not after the training, whose results would be lost.
    check_tests(config, tests, "--protocol")
    return Request(
        config=config,
        given=given_keys(arguments),
        resume=arguments.resume,
        eval_only=arguments.eval_only,
        force=arguments.force,
        overwrite=arguments.overwrite,
        tests=tests,
    )


def _protocols(names: list[str], config: object) -> tuple[str, ...]:
    if "all" not in names:
        return tuple(dict.fromkeys(names))
    # Images as small as CIFAR's are tested as they are, and no other way.
    return ("single",) if config.TEST.PROTOCOL == "single" else tuple(name for name in PROTOCOLS if name != "single")
