"""Pictures to train on: the handwritten digits that come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

CLASSES = 10
_TEST_SHARE = 0.25
_SPLIT_SEED = 0
_WHITE = 16.0


@dataclass(frozen=True, slots=True)
class Images:
    """Pictures `[count, 3, size, size]`, of mean 0 and variance 1, and classes `[count]`, in two parts."""

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


def digits(size: int, count: int | None = None) -> Images:
    """Return the digits: 1797 real ones, 8x8 pixels (Alpaydin, Kaynak, UCI 1998), a quarter of them to test.

    The split is always the same, with equal shares of every class.

    Args:
        size: height and width that they are enlarged to.
        count: of training images to use; None: all 1347.
    """
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32)[:, None] / _WHITE
    pixels = (pixels - pixels.mean()) / pixels.std()
    enlarged = functional.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    classes = torch.tensor(data.target, dtype=torch.int64)
    train, test = train_test_split(
        range(len(classes)), test_size=_TEST_SHARE, random_state=_SPLIT_SEED, stratify=data.target
    )
    pictures = enlarged.expand(-1, 3, -1, -1).contiguous()
    used = train[:count]
    return Images(pictures[used], classes[used], pictures[test], classes[test])
