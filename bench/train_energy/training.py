"""One training from the first step to the last, and how good the network is afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional

from bench.study.runs import Cell, Run
from bench.train_energy.devices import Trainer
from bench.train_energy.images import CLASSES, Images
from bench.train_energy.networks import make_network
from bench.train_energy.plan import Recipe

_TEST_BATCH = 128


def train(cell: Cell, seed: int, trainer: Trainer, images: Images, recipe: Recipe, gigaflops: float) -> Run:
    """Train a network anew and return the run.

    Measured is the training alone: neither making the network nor testing it counts. The first step's warming
    up does, as it would for anybody.

    Args:
        cell: network, batch size, device; the device is `trainer`.
        seed: of the weights and of the order of the pictures.
        trainer: where.
        images: on the CPU.
        recipe: how.
        gigaflops: for the record.
    """
    torch.manual_seed(seed)
    network = trainer.spread(make_network(cell.architecture, CLASSES)).train()
    pictures, classes = images.train.to(trainer.device), images.train_classes.to(trainer.device)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    trainer.finish()
    trainer.use.start()
    trainer.energy.start()
    began_s, seen = time.monotonic(), 0
    for _ in range(recipe.epochs):
        for part in _batches(len(classes), cell.batch_size, order):
            _step(network, optimizer, pictures[part], classes[part])
            seen += len(part)
        trainer.finish()
        trainer.energy.lap()
    duration_s, energy, use = time.monotonic() - began_s, trainer.energy.stop(), trainer.use.stop()
    f1, accuracy = _test(network, images, trainer.device)
    return Run(
        gpu=cell.gpu,
        architecture=cell.architecture,
        batch_size=cell.batch_size,
        number=seed,
        images=seen,
        epochs=recipe.epochs,
        duration_s=duration_s,
        energy=energy,
        f1=f1,
        accuracy=accuracy,
        gigaflops=gigaflops,
        gpu_use=use,
    )


def _batches(count: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Every whole batch of one epoch: what is left over comes in another epoch's order."""
    shuffled = torch.randperm(count, generator=order)
    for first in range(0, count - size + 1, size):
        yield shuffled[first : first + size]


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, pictures: Tensor, classes: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    functional.cross_entropy(network(pictures), classes).backward()
    optimizer.step()


def _test(network: nn.Module, images: Images, device: torch.device) -> tuple[float, float]:
    """Return the F1 score, every class counting alike, and the accuracy."""
    network.eval()
    with torch.inference_mode():
        answers = [network(part.to(device)).argmax(dim=1).cpu() for part in images.test.split(_TEST_BATCH)]
    found, true = torch.cat(answers).numpy(), images.test_classes.numpy()
    f1 = f1_score(true, found, average="macro", zero_division=0.0)
    return float(f1), float((found == true).mean())
