"""Inception-v3: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015.

Widths that the paper leaves open are those of the authors' published model, which also has the batch
normalisation everywhere. Without the auxiliary classifier, which serves training alone.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from server.zoo.blocks import Parallel, average_pool, classifier, conv_bn

_unit = partial(conv_bn, epsilon=1e-3)


def inception_v3() -> nn.Module:
    """Return the network for `[batch, 3, 299, 299]`."""
    pool, flatten, linear = classifier(2048, 1000)
    return nn.Sequential(
        *_stem(),
        *(_fives(192, 32), _fives(256, 64), _fives(288, 64)),
        _fewer_from_35(288),
        *(_sevens(768, 128), _sevens(768, 160), _sevens(768, 160), _sevens(768, 192)),
        _fewer_from_17(768),
        *(_wide(1280), _wide(2048)),
        *(pool, flatten, nn.Dropout(), linear),
    )


def _stem() -> tuple[nn.Module, ...]:
    return (
        _unit(3, 32, 3, stride=2, padding=0),
        _unit(32, 32, 3, padding=0),
        _unit(32, 64, 3),
        nn.MaxPool2d(3, 2),
        _unit(64, 80, 1),
        _unit(80, 192, 3, padding=0),
        nn.MaxPool2d(3, 2),
    )


def _fives(inputs: int, pooled: int) -> Parallel:
    """Figure 5, on 35x35, with one 5x5 kept."""
    return Parallel(
        [
            _unit(inputs, 64, 1),
            nn.Sequential(_unit(inputs, 48, 1), _unit(48, 64, 5)),
            nn.Sequential(_unit(inputs, 64, 1), _unit(64, 96, 3), _unit(96, 96, 3)),
            nn.Sequential(average_pool(3, 1), _unit(inputs, pooled, 1)),
        ]
    )


def _fewer_from_35(inputs: int) -> Parallel:
    """Figure 10: 35x35 to 17x17."""
    halve = _unit(96, 96, 3, stride=2, padding=0)
    return Parallel(
        [
            _unit(inputs, 384, 3, stride=2, padding=0),
            nn.Sequential(_unit(inputs, 64, 1), _unit(64, 96, 3), halve),
            nn.MaxPool2d(3, 2),
        ]
    )


def _sevens(inputs: int, width: int) -> Parallel:
    """Figure 6 with n = 7, on 17x17."""
    lying, standing = (1, 7), (7, 1)
    double = (
        *(_unit(inputs, width, 1), _unit(width, width, standing), _unit(width, width, lying)),
        *(_unit(width, width, standing), _unit(width, 192, lying)),
    )
    single = (_unit(inputs, width, 1), _unit(width, width, lying), _unit(width, 192, standing))
    pooled = (average_pool(3, 1), _unit(inputs, 192, 1))
    return Parallel(
        [_unit(inputs, 192, 1), nn.Sequential(*single), nn.Sequential(*double), nn.Sequential(*pooled)]
    )


def _fewer_from_17(inputs: int) -> Parallel:
    """17x17 to 8x8."""
    seven = (_unit(inputs, 192, 1), _unit(192, 192, (1, 7)), _unit(192, 192, (7, 1)))
    return Parallel(
        [
            nn.Sequential(_unit(inputs, 192, 1), _unit(192, 320, 3, stride=2, padding=0)),
            nn.Sequential(*seven, _unit(192, 192, 3, stride=2, padding=0)),
            nn.MaxPool2d(3, 2),
        ]
    )


def _wide(inputs: int) -> Parallel:
    """Figure 7, on 8x8."""
    return Parallel(
        [
            _unit(inputs, 320, 1),
            nn.Sequential(_unit(inputs, 384, 1), _crossed(384)),
            nn.Sequential(_unit(inputs, 448, 1), _unit(448, 384, 3), _crossed(384)),
            nn.Sequential(average_pool(3, 1), _unit(inputs, 192, 1)),
        ]
    )


def _crossed(width: int) -> Parallel:
    return Parallel([_unit(width, width, (1, 3)), _unit(width, width, (3, 1))])
