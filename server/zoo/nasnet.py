"""NASNet-A (4 @ 1056), known as NASNet-Mobile: Zoph et al., "Learning transferable architectures", 2017.

The cells are those of its figure 4; how the two inputs of a cell are brought to one shape is in its
appendix A. Without the auxiliary classifier and the dropped paths, which serve training alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from server.zoo.blocks import average_pool, classifier, separable

_STEM = 32
_FILTERS = 44
_REPEATS = 4
_EPSILON = 1e-3


def nasnet_mobile() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    return NasNet()


class NasNet(nn.Module):
    """A stem, and cells of which each sees the answers of the two before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, _STEM, 3, 2, bias=False), nn.BatchNorm2d(_STEM, _EPSILON))
        self.cells = nn.ModuleList(_cells())
        self.head = nn.Sequential(nn.ReLU(), *classifier(6 * 4 * _FILTERS, 1000))

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `[batch, 1000]`."""
        before = here = self.stem(images)
        for cell in self.cells:
            before, here = here, cell(here, before)
        return self.head(here)


def _cells() -> list[nn.Module]:
    """The stem's two reductions, then three stages of normal cells with a reduction between them."""
    plan: list[tuple[type[NormalCell] | type[ReductionCell], int]] = [
        (ReductionCell, _FILTERS // 4),
        (ReductionCell, _FILTERS // 2),
    ]
    for stage, filters in enumerate((_FILTERS, 2 * _FILTERS, 4 * _FILTERS)):
        plan += [(ReductionCell, filters)] if stage else []
        plan += [(NormalCell, filters)] * _REPEATS
    cells, here, before, larger = list[nn.Module](), _STEM, None, False
    for kind, filters in plan:
        cells.append(kind(CellInputs(here, before, filters, before_is_larger=larger), filters))
        here, before, larger = kind.PARTS * filters, here, kind is ReductionCell
    return cells


class CellInputs(nn.Module):
    """Brings the last two answers to one size and number of channels.

    Args:
        here: channels of the last answer.
        before: channels of the one before it; None in the first cell, which takes the same answer twice and
            the second time as it is.
        filters: channels wanted.
        before_is_larger: whether the one before has twice the height and width.
    """

    def __init__(self, here: int, before: int | None, filters: int, *, before_is_larger: bool) -> None:
        super().__init__()
        self.here = _project(here, filters)
        self.before_channels = here if before is None else filters
        if before_is_larger and before is not None:
            self.before: nn.Module = _HalvedInTwoWays(before, filters)
        else:
            self.before = nn.Identity() if before in (None, filters) else _project(before, filters)

    def forward(self, here: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, `[batch, filters, height, width]`."""
        return self.here(here), self.before(before)


class NormalCell(nn.Module):
    """Keeps the size; answers with six times `filters` channels."""

    PARTS = 6

    def __init__(self, inputs: CellInputs, filters: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.here5 = _twice_separable(filters, filters, 5)
        self.before3 = _twice_separable(filters, filters, 3)
        self.before5 = _twice_separable(filters, filters, 5)
        self.before3_again = _twice_separable(filters, filters, 3)
        self.here3 = _twice_separable(filters, filters, 3)
        self.average = average_pool(3, 1)

    def forward(self, here: Tensor, before: Tensor) -> Tensor:
        """Return `[batch, 6 * filters, height, width]` of the two previous answers."""
        h, p = self.inputs(here, before)
        parts = (
            p,
            self.here5(h) + self.before3(p),
            self.before5(p) + self.before3_again(p),
            self.average(h) + p,
            self.average(p) + self.average(p),
            self.here3(h) + h,
        )
        return torch.cat(parts, dim=1)


class ReductionCell(nn.Module):
    """Halves the size; answers with four times `filters` channels."""

    PARTS = 4

    def __init__(self, inputs: CellInputs, filters: int) -> None:
        super().__init__()
        self.inputs = inputs
        before = inputs.before_channels
        self.here5 = _twice_separable(filters, filters, 5, stride=2)
        self.before7 = _twice_separable(before, filters, 7, stride=2)
        self.before7_again = _twice_separable(before, filters, 7, stride=2)
        self.before5 = _twice_separable(before, filters, 5, stride=2)
        self.first3 = _twice_separable(filters, filters, 3)
        self.largest = nn.MaxPool2d(3, 2, 1)
        self.halve = average_pool(3, 2)
        self.average = average_pool(3, 1)

    def forward(self, here: Tensor, before: Tensor) -> Tensor:
        """Return `[batch, 4 * filters, height / 2, width / 2]` of the two previous answers."""
        h, p = self.inputs(here, before)
        first = self.here5(h) + self.before7(p)
        second = self.largest(h) + self.before7_again(p)
        third = self.halve(h) + self.before5(p)
        fourth = self.average(first) + second
        fifth = self.first3(first) + self.largest(h)
        return torch.cat((second, third, fourth, fifth), dim=1)


class _HalvedInTwoWays(nn.Module):
    """Takes every other pixel, once from the first and once from the second on: half of the channels each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, _EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        active = functional.relu(images)
        moved = functional.pad(active, (0, 1, 0, 1))[:, :, 1:, 1:]
        parts = self.even(active[:, :, ::2, ::2]), self.odd(moved[:, :, ::2, ::2])
        return self.norm(torch.cat(parts, dim=1))


def _project(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, _EPSILON)
    )


def _twice_separable(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Module:
    """The paper applies every separable convolution twice; the first of the two takes the stride."""
    return nn.Sequential(
        *(nn.ReLU(), separable(inputs, outputs, kernel, stride=stride), nn.BatchNorm2d(outputs, _EPSILON)),
        *(nn.ReLU(), separable(outputs, outputs, kernel), nn.BatchNorm2d(outputs, _EPSILON)),
    )
