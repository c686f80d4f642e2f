"""What the user asks a run to do."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .hooks import Hook, registered_hooks

if TYPE_CHECKING:
    from .rate_sweep import Sweep


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        config: frozen; its OUTPUT_DIR is the run folder.
        given: config keys that stood on the command line.
        force: resume although the config has changed.
        plan_only: say what the run would do and take, and stop.
        draw: folder for pictures of the first training batches, in place of the training.
        sweep: the learning rates to try, in place of the training; with `plan_only`. None for none.
        overwrite: throw away a former run in the folder.
        tests: what an evaluation computes beyond its default, by names that the kind of run knows.
        predictions: folder for what the last test predicted, where the kind of run writes it; None for none.
        json: file for a copy of results.json; None for none.
        imports: modules of the user's own, imported in every process; see `extensions.import_modules`.
        hooks: of this run, beside those that modules have registered.
        transforms: of the training samples of this run, beside those that modules have registered; of detectors.
    """

    config: Any
    given: Collection[str] = field(default_factory=set)
    resume: bool = False
    eval_only: bool = False
    force: bool = False
    overwrite: bool = False
    plan_only: bool = False
    draw: Path | None = None
    sweep: Sweep | None = None
    tests: tuple[str, ...] = ()
    predictions: Path | None = None
    json: Path | None = None
    imports: tuple[str, ...] = ()
    hooks: tuple[Hook, ...] = ()
    transforms: tuple[Callable[..., Any], ...] = ()

    @property
    def keeps_nothing(self) -> bool:
        """Whether the run writes no run folder."""
        return self.plan_only or self.draw is not None

    @property
    def folder(self) -> Path:
        return Path(self.config.OUTPUT_DIR)

    def all_hooks(self) -> list[Hook]:
        """Return new hooks of those that modules have registered, and this run's own."""
        return [*registered_hooks(), *self.hooks]
