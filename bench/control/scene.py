"""What all of it needs: cards of the stand-in, a repository with a small network, a keeper's place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import TensorProto, helper

from bench.standin.build import build
from bench.standin.cards import CardSpec, make_card
from bench.standin.control import Rack

MODEL = "small"
PROFILE, PROFILE_MODEL = "v100", "resnet50"
VALUES = 4
"""The network's input: so many FP32 values an image."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A rack of cards that this user may set, and directories for what the processes write."""

    directory: Path
    rack: Rack
    cards: Sequence[CardSpec]

    @property
    def repository(self) -> Path:
        """A model repository with one small network."""
        return self.directory / "models"

    @property
    def socket(self) -> Path:
        """Where the keeper listens."""
        return self.directory / "keeper.sock"

    @property
    def markers(self) -> Path:
        """Where the keeper keeps its markers."""
        return self.directory / "markers"

    @property
    def keeper_config(self) -> Path:
        """What the keeper is told: all that the cards can do is permitted to this user."""
        return self.directory / "keeper.toml"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process that shall see the cards."""
        return {**os.environ, **self.rack.environment, "CUDA_VISIBLE_DEVICES": self.all_visible}

    @property
    def all_visible(self) -> str:
        """All cards, whatever this process was shown."""
        return ",".join(self.uuids)

    @property
    def uuids(self) -> Sequence[str]:
        """The cards by index."""
        return [self.rack.uuid(card) for card in range(len(self.rack))]


@contextmanager
def make_scene(cards: int = 1, kind: str = "volta", library: Path | None = None) -> Iterator[Scene]:
    """Make the rack and the repository; everything is gone afterwards. `library`: where it was built already.

    Raises:
        BuildError: there is no C compiler.
    """
    with tempfile.TemporaryDirectory(prefix="boulton-control-") as name:
        directory = Path(name)
        library = library or build(directory / "library")
        specs = [
            replace(make_card(kind, number), privileged_uid=os.geteuid(), setter_s=0.015)
            for number in range(cards)
        ]
        with Rack.create(directory / "rack", specs, library) as rack:
            scene = Scene(directory, rack, specs)
            put_network(scene.repository)
            scene.keeper_config.write_text(_keeper_config(scene), encoding="utf-8")
            yield scene


def _keeper_config(scene: Scene) -> str:
    head = f'socket = "{scene.socket}"\nstate_dir = "{scene.markers}"\nusers = [{os.geteuid()}]\n'
    return head + "".join(map(_permit, scene.cards))


def _permit(card: CardSpec) -> str:
    lines = ["[[gpu]]", f'uuid = "{card.uuid}"']
    lines.append(f"sm_clock_mhz = [{card.sm_clocks_mhz[0]}, {card.sm_clocks_mhz[-1]}]")
    lines.append(f"power_limit_w = [{card.power_limit_w[1]}, {card.power_limit_w[2]}]")
    lines.append(f"memory_clocks_mhz = {list(card.memory_clocks_mhz)}")
    return "\n" + "\n".join(lines) + "\n"


def put_network(repository: Path) -> None:
    """Put a network into a repository; a simulated engine reads its shapes only."""
    shape = ("batch", VALUES)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], MODEL, values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    directory = repository / MODEL / "1"
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
