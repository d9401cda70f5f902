"""Data sets whose samples know their epoch."""

from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback


class EpochDataset(Dataset):
    """
    Base of data sets whose samples differ from epoch to epoch: all randomness derives from it.

    The number lies in shared memory, so that workers that live on from epoch to epoch read it too.
    """

    def __init__(self, epoch: int = 0):
        self._epoch = torch.tensor(epoch).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Called by [`EpochSetter`] at the start of each epoch."""
        self._epoch.fill_(epoch)


class EpochSetter(TrainerCallback):
    """
    Tells the training data their epoch. The data loaders of accelerate do so only where no batch sampler is wrapped:
    not with several ranks, and not in the first epoch of a resumed run.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        dataset = getattr(train_dataloader, "dataset", None)
        if isinstance(dataset, EpochDataset):
            dataset.set_epoch(int(state.epoch or 0))
