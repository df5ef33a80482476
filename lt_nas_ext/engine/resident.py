"""Images where the run computes, if they fit there; otherwise they stay on the host and every batch is sent ahead."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lt_nas_ext.data import Batches, ImageSet

SHARE = 0.5
"""Of a device's free memory that one set of images may take; the networks and what backward keeps need the rest."""

Pair = tuple[torch.Tensor, torch.Tensor]


def resident(images: ImageSet, device: torch.device) -> ImageSet:
    """The set on the device where it fits, otherwise as it is, on the host."""
    return images.to(device) if fits(images, device) else images


def fits(images: ImageSet, device: torch.device) -> bool:
    """Whether the device has room for the set, in bytes: uint8 as it is kept."""
    if device.type != "cuda" or images.images.is_cuda:
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.images.nbytes <= SHARE * free


def epoch_on(device: torch.device, batches: Batches, epoch: int) -> Iterator[Pair]:
    """An epoch's batches on the device, wherever the images are."""
    drawn = batches.epoch(epoch)
    return drawn if batches.images.images.device.type == device.type else sent_ahead(drawn, device)


def sent_ahead(batches: Iterator[Pair], device: torch.device) -> Iterator[Pair]:
    """Batches of the host on a CUDA device: while a step computes, the next batch is copied on a stream beside it."""
    stream = torch.cuda.Stream(device)
    waiting: tuple[Pair, torch.cuda.Event] | None = None
    for images, labels in batches:
        with torch.cuda.stream(stream):
            sent = tuple(one.pin_memory().to(device, non_blocking=True) for one in (images, labels))
            copied = stream.record_event()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = (sent[0], sent[1]), copied
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Pair, copied: torch.cuda.Event) -> Pair:
    """The batch, for the stream that asks; its memory is not given away before that stream is done with it."""
    current = torch.cuda.current_stream(batch[0].device)
    current.wait_event(copied)
    for one in batch:
        one.record_stream(current)
    return batch
