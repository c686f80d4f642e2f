"""Class probabilities of views by one network or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ...engine.image_progress import ImageProgress
from .protocols import Protocol
from .views import DENSE_TOGETHER, Chunk, Group, join_chunks

Prepare = Callable[[Tensor], Tensor]


class Scorer:
    """Gives the mean softmax over views, their flips and networks.

    Args:
        networks: in evaluation mode, on `device`.
        prepare: one for all networks or one each; takes (N, 3, H, W) uint8 RGB on `device`, returns a network's input.
        batch_size: views of crop x crop pixels in a forward pass; views of dense count by their area.
        amp: autocast's dtype, or None.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        prepare: Prepare | Sequence[Prepare],
        protocol: Protocol,
        *,
        device: torch.device,
        batch_size: int,
        amp: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        prepares = [prepare] * len(networks) if callable(prepare) else list(prepare)
        if len(prepares) != len(networks):
            raise ValueError(f"{len(networks)} networks, but {len(prepares)} functions to prepare their images")
        self.members = list(zip(networks, prepares))
        self.protocol = protocol
        self.device = device
        self.batch_size = batch_size
        self.amp = amp
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    @torch.inference_mode()
    def run(
        self, loader: Iterable[Chunk], shape: tuple[int, int], progress: ImageProgress
    ) -> tuple[Tensor, dict[int, str]]:
        """Score all images of `loader`.

        Args:
            shape: number of images and of classes.

        Returns:
            probabilities (images, classes), float32 on `device`, and {row: what is wrong} of the images that cannot be
            read, whose probabilities are 0.
        """
        totals = torch.zeros(shape, device=self.device)
        unreadable: dict[int, str] = {}
        together = DENSE_TOGETHER if self.protocol.name == "dense" else 1
        for chunk in join_chunks(map(self._to_device, loader), together):
            for rows, pixels in chunk.groups:
                totals.index_add_(0, rows, self(pixels).to(totals.dtype))
            unreadable.update(chunk.unreadable)
            progress.add(chunk.images)
        return totals / self.protocol.sizes, unreadable

    def _to_device(self, chunk: Chunk) -> Chunk:
        groups = [Group(*(tensor.to(self.device, non_blocking=True) for tensor in group)) for group in chunk.groups]
        return chunk._replace(groups=groups)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the probabilities (n, classes) of `pixels` (n, views, h, w, 3), uint8 RGB; float32 or wider."""
        images, views = pixels.shape[:2]
        inputs = pixels.flatten(0, 1).permute(0, 3, 1, 2)
        if self.protocol.flipped:
            # Before `prepare`: a mean image is not flipped.
            inputs = torch.cat([inputs, inputs.flip(3)])
        found = torch.cat([self._mean_softmax(part) for part in inputs.split(self._most(inputs))])
        return found.view(-1, images, views, found.shape[1]).mean((0, 2))

    def _most(self, inputs: Tensor) -> int:
        """Return how many of `inputs` may run at once."""
        if self.protocol.name != "dense":
            return self.batch_size
        return max(1, self.batch_size * self.protocol.crop**2 // inputs[0, 0].numel())

    def _mean_softmax(self, inputs: Tensor) -> Tensor:
        return torch.stack([self._softmax(*member, inputs) for member in self.members]).mean(0)

    def _softmax(self, network: nn.Module, prepare: Prepare, inputs: Tensor) -> Tensor:
        images = prepare(inputs).contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            dense = self.protocol.name == "dense"
            logits = network.dense_logits(images, self.protocol.crop) if dense else network(images)["logits"]
        if logits.dtype != torch.float64:
            logits = logits.float()
        return logits.softmax(1)
