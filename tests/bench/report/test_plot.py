import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from bench.report.plot import Axis, Point, Series, plot
from bench.report.scale import scale_of

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: Sequence[Series], *, log: bool = False) -> ET.Element:
    drawing = plot("title", Axis("x", log=log), Axis("y", log=log), series)
    return ET.fromstring(drawing)  # noqa: S314 - our own


def test_every_point_is_drawn_inside_the_axes() -> None:
    points = tuple(Point(x, y, y * 0.9, y * 1.1, f"{x}") for x, y in ((1, 5.0), (8, 700.0), (64, 3.0)))
    for log in (False, True):
        svg = drawn([Series("a", points)], log=log)
        places = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in svg.iter(f"{SVG}circle")][:-1]
        assert len(places) == 3
        assert all(66 <= x <= 546 and 34 <= y <= 334 for x, y in places)
        assert [t.text for t in svg.iter(f"{SVG}title")] == ["1", "8", "64"]


def test_larger_values_lie_further_right_and_higher() -> None:
    svg = drawn([Series("a", (Point(1, 1), Point(2, 2)))])
    first, second = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in svg.iter(f"{SVG}circle")][:2]
    assert first[0] < second[0]
    assert first[1] > second[1]


def test_series_of_one_name_share_a_colour_and_a_legend() -> None:
    svg = drawn([Series("a", (Point(1, 1),)), Series("b", (Point(1, 2),)), Series("a", (Point(2, 2),))])
    colours = [c.get("fill") for c in svg.iter(f"{SVG}circle")]
    assert colours[0] == colours[2] == colours[3] != colours[1] == colours[4]


def test_many_series_look_different() -> None:
    svg = drawn([Series(str(number), (Point(number, 1),)) for number in range(16)])
    looks = {(c.attrib["fill"], c.attrib["stroke"]) for c in svg.iter(f"{SVG}circle")}
    assert len(looks) == 16


def test_numbers_are_never_powers_of_ten() -> None:
    svg = drawn([Series("a", (Point(1, 30_000), Point(1e5, 0.002)))], log=True)
    texts = [text.text or "" for text in svg.iter(f"{SVG}text")]
    assert "10\u2009000" in texts
    assert not any("e+" in text for text in texts)


def test_an_axis_need_not_begin_at_zero() -> None:
    near = scale_of([0.97, 1.0], 0, 100, log=False, from_zero=False)
    assert near.low > 0.9
    assert scale_of([0.97, 1.0], 0, 100, log=False).low == 0.0
    assert scale_of([1.0], 0, 100, log=False, from_zero=False).marks()


def test_what_a_logarithm_cannot_show_is_left_out() -> None:
    svg = drawn([Series("a", (Point(0, 1), Point(1, 0), Point(1, 1)))], log=True)
    assert len(list(svg.iter(f"{SVG}circle"))) == 2  # a point and the legend


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([], False),
        ([], True),
        ([0.0], False),
        ([3.0], True),
        ([1, 256], True),
        ([-2, 5], False),
        ([1e-4, 4e3], True),
    ],
)
def test_marks_are_a_few_within_the_range(values: list[float], *, log: bool) -> None:
    scale = scale_of(values, 0, 100, log=log)
    marks = scale.marks()
    assert 1 < len(marks) <= 14
    assert all(-1e-6 <= scale.place(mark) <= 100 + 1e-6 for mark in marks)
    assert list(marks) == sorted(set(marks))
