"""Latent windows the plain way: a torch DataLoader over random slices of an HDF5 file."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Slices(Dataset):
    """Windows of an array `latents` `(N, L, C, *grid)`, each a slice of the file.

    Arguments:
        path: The file; every process opens it for itself.
        length: States per window.
        stride: Simulation steps between states.
    """

    def __init__(self, path: Path, length: int, stride: int) -> None:
        self.path, self.stride, self.span = path, stride, (length - 1) * stride + 1
        with h5py.File(path, "r") as file:
            trajectories, steps = file["latents"].shape[:2]
        self.starts = steps - self.span + 1
        self.count = trajectories * self.starts
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        i, start = divmod(index, self.starts)
        states = torch.from_numpy(self.file["latents"][i, start : start + self.span : self.stride])
        return states.movedim(0, 1), torch.from_numpy(self.file["parameters"][i])


def plain_batches(slices: Slices, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless shuffled batches, by persistent workers."""
    loader = DataLoader(
        slices,
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        drop_last=True,
    )
    while True:
        yield from loader
