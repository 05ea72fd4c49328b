from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.devices.keeper.marker import ANYTHING, Axis, Marker, decode_marker, encode_marker, is_uuid
from optimizer.devices.keeper.marker_files import MarkerFiles

UUID = "GPU-57a4d100-0000-4000-8000-000000000000"
AXES = st.frozensets(st.sampled_from(Axis))
MARKERS = st.builds(
    Marker,
    AXES,
    AXES,
    st.none() | st.integers(1, 10**6).map(lambda milliwatts: milliwatts / 1000),
    st.none() | st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
)


@given(MARKERS)
def test_a_marker_survives_the_file(marker: Marker) -> None:
    assert decode_marker(UUID, encode_marker(UUID, marker)) == marker


@given(MARKERS, st.data())
def test_a_marker_that_was_cut_or_changed_is_never_taken_for_whole(
    marker: Marker, data: st.DataObject
) -> None:
    content = encode_marker(UUID, marker)
    length = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        decode_marker(UUID, content[:length])
    with pytest.raises(ValueError):  # noqa: PT011
        decode_marker("GPU-another", content)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"changed": ["everything"]},
        {"changed": None},
        {"power_limit_w": "250"},
        {"power_limit_w": -1},
        {"power_limit_w": True},
        {"application_clocks_mhz": [1]},
        {"application_clocks_mhz": [1.5, 2]},
        {"application_clocks_mhz": "11"},
    ],
)
def test_a_marker_that_nobody_wrote_is_refused(change: dict[str, object]) -> None:
    values = json.loads(encode_marker(UUID, Marker(frozenset(Axis), frozenset(), 250.0, (1, 2)))) | change
    with pytest.raises(ValueError):  # noqa: PT011
        decode_marker(UUID, json.dumps(values).encode())


@given(MARKERS, st.sampled_from(Axis))
def test_an_axis_is_announced_confirmed_and_forgotten(marker: Marker, axis: Axis) -> None:
    assert axis in marker.about_to(axis).changed
    assert axis in marker.about_to(axis).confirm(axis).confirmed
    without = marker.about_to(axis).confirm(axis).without(axis)
    assert axis not in without.changed | without.confirmed
    assert (without.power_limit_w, without.application_clocks_mhz) == (
        marker.power_limit_w,
        marker.application_clocks_mhz,
    )


@pytest.mark.parametrize(
    "text", ["", "0", "GPU-", "GPU-../../etc/passwd", "MIG-57a4", "gpu-57a4", "GPU-57a4\n", "GPU-57 a4"]
)
def test_only_a_uuid_names_a_file(text: str) -> None:
    assert is_uuid(UUID)
    assert not is_uuid(text)


def test_markers_are_files_that_come_and_go(tmp_path: Path) -> None:
    markers = MarkerFiles(tmp_path)
    assert markers.uuids() == []
    assert markers.read(UUID) is None
    markers.remove(UUID)
    marker = Marker(frozenset({Axis.POWER_LIMIT}), frozenset(), 233.0)
    markers.write(UUID, Marker())
    markers.write(UUID, marker)
    (tmp_path / "lock").touch()
    (tmp_path / f"{UUID}.new").touch()  # of a keeper that was killed while it wrote
    assert markers.uuids() == [UUID]
    assert markers.read(UUID) == marker
    markers.remove(UUID)
    assert markers.uuids() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 1}'])
def test_an_unreadable_marker_stands_for_any_change(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{UUID}.json").write_bytes(content)
    assert MarkerFiles(tmp_path).read(UUID) == ANYTHING


def test_a_marker_is_on_the_disk_before_it_takes_its_name_and_its_name_before_anything_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def note_sync(descriptor: int) -> None:
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        events.append("named")
        return replace(path, target)

    def note_unlink(path: Path, missing_ok: bool = False) -> None:
        events.append("removed")
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    markers = MarkerFiles(tmp_path)
    markers.write(UUID, Marker())
    markers.remove(UUID)
    assert events == ["file", "named", "directory", "removed", "directory"]
