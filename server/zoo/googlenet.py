"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", CVPR 2015, table 1.

Without the two auxiliary classifiers, which serve training alone, and without batch normalisation, which came
later. Where the paper leaves the normalisation's constants open, AlexNet's are used, with k = 1.
"""

from __future__ import annotations

from torch import nn

from server.zoo.blocks import LocalResponseNorm, Parallel, classifier, conv

# 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection. None: pooling to half the size.
_INCEPTIONS: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def googlenet() -> nn.Module:
    """Return the network for `[batch, 3, 224, 224]`."""
    stem = (
        *(conv(3, 64, 7, stride=2), _half(), LocalResponseNorm(k=1.0)),
        *(conv(64, 64, 1), conv(64, 192, 3), LocalResponseNorm(k=1.0), _half()),
    )
    channels, body = 192, list[nn.Module]()
    for widths in _INCEPTIONS:
        if widths is None:
            body.append(_half())
        else:
            body.append(inception(channels, *widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
    pool, flatten, linear = classifier(channels, 1000)
    return nn.Sequential(*stem, *body, pool, flatten, nn.Dropout(0.4), linear)


def inception(
    inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
) -> Parallel:
    """Return an inception module (figure 2b of the paper); the widths are the columns of its table."""
    return Parallel(
        [
            conv(inputs, one, 1),
            nn.Sequential(conv(inputs, reduce3, 1), conv(reduce3, three, 3)),
            nn.Sequential(conv(inputs, reduce5, 1), conv(reduce5, five, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, pool, 1)),
        ]
    )


def _half() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)
