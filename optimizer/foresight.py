"""What layer-wise prediction says of a network on a device before it has run there: the governor's prior.

A predictor is of one device. Whether that is the device at hand is asked by name, and a simulated one is not
taken for a real one of the same name: what it knows of layers is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optimizer.layers.count import count_layers_of_file
from optimizer.layers.fusion import Step, fuse
from optimizer.layers.network import predict_network
from optimizer.layers.predictor import LayerPredictor
from optimizer.models.prior import Prior


def steps_of_file(network: Path) -> tuple[Step, ...]:
    """Read the steps of an ONNX network. Raises ValueError for whatever is wrong with the file."""
    try:
        return fuse(count_layers_of_file(network, 1))
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise ValueError(f"{network} cannot be read as an ONNX network: {error}") from error


def check_device(predictor: LayerPredictor, device: str, *, simulated: bool) -> None:
    """Raise ValueError unless the predictor is of this device.

    Args:
        predictor: states its device in its provenance.
        device: the name of the one at hand: of a simulated GPU's profile, of a card, of a processor.
        simulated: whether that one is.
    """
    fitted = str(predictor.provenance["device"])
    if predictor.simulated and not simulated:
        raise ValueError(
            f"it was fitted to a simulated {fitted}, and {device} is real: what layers take on the simulated "
            "one is assumed. Fit one to this machine with `boulton calibrate`, or leave it out"
        )
    if _plain(fitted) != _plain(device):
        raise ValueError(
            f"it was fitted to {fitted}, and this is {device}: fit one to this device with `boulton "
            "calibrate`, or leave it out"
        )


def prior_of(
    predictor: LayerPredictor, steps: Sequence[Step], largest_batch: int, clocks_mhz: Sequence[int]
) -> Prior:
    """Predict a network at batch sizes up to the largest, each twice the one before, and at every clock.

    Where no clock is set, at the highest that the predictor knows: a GPU left alone runs as fast as it can.

    Raises:
        ValueError: clocks are set, and the predictor was fitted where none could be; or clocks or batches are
            too far from those that it was fitted to.
    """
    sizes = sorted({*(1 << power for power in range(largest_batch.bit_length())), largest_batch})
    clocks = tuple(map(float, clocks_mhz))
    if clocks and not predictor.clocks_mhz:
        raise ValueError(
            f"it was fitted where no clock could be set, and says nothing of {clocks[0]:.0f} to "
            f"{clocks[-1]:.0f} MHz"
        )
    predicted = predict_network(predictor, steps, sizes, clocks or predictor.clocks_mhz[-1:])
    spread = float(np.mean(predicted.spread))
    return Prior(tuple(sizes), clocks, predicted.run_s, predicted.power_w, spread)


def _plain(name: str) -> str:
    """A profile may be named by its file; case and a maker's name in front say nothing."""
    return Path(name).name.removesuffix(".toml").lower().removeprefix("nvidia ").strip()
