"""From what stands on the command line to a Request."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from ..engine.arguments import given_keys, overrides_of
from ..engine.session import Request
from .config import load_config


@dataclass(frozen=True)
class SegmentationRequest(Request):
    """A Request with what a segmentation run writes beside its folder.

    Attributes:
        predictions: folder for the predicted label images; None for none.
        json: file for the results; None for none.
    """

    predictions: Path | None = None
    json: Path | None = None


def make_request(arguments: Namespace) -> SegmentationRequest:
    """Return the request of tools/train_segmentation.py's arguments.

    Raises:
        ConfigError: config, overrides or flags do not fit together.
    """
    return SegmentationRequest(
        config=load_config(arguments.config, overrides_of(arguments, root_key="DATA.ROOT")),
        given=given_keys(arguments),
        resume=arguments.resume,
        eval_only=arguments.eval_only,
        force=arguments.force,
        overwrite=arguments.overwrite,
        predictions=Path(arguments.save_predictions) if arguments.save_predictions else None,
        json=Path(arguments.json) if arguments.json else None,
    )
