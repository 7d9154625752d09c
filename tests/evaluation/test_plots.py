"""Plots put points where their numbers say, in SVG that parses, and never let a name become markup."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.core.scene import Scene, Shape
from understudy.evaluation.plots import Curve, curves_svg, intervals_svg, labels, number, painted, ticks
from understudy.maths.stats import Estimate

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(c.get("cx")), float(c.get("cy"))) for c in parsed(svg).iter(f"{SVG}circle")]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
def test_ticks_are_a_handful_evenly_spaced_and_within(low, width):
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 7
    assert low - 1e-6 * width <= found[0] and found[-1] <= low + (1 + 1e-6) * width
    gaps = [b - a for a, b in pairwise(found)]
    assert max(gaps) - min(gaps) <= 1e-6 * width


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9))
def test_labels_tell_every_tick_from_the_next(low, width):
    found = ticks(low, low + width)
    assert len(set(labels(found))) == len(found)


def test_ticks_are_round_numbers():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.13, 0.31) == [-0.1, 0.0, 0.1, 0.2, 0.3]
    assert ticks(3, 3) == [3]


def test_numbers_are_short():
    assert [number(v) for v in (0.25, -3.0, 2500.0, 1.2e6, 3e9)] == ["0.25", "-3", "2.5k", "1.2M", "3G"]
    assert labels([10_000.1, 10_000.2]) == ["10.0001k", "10.0002k"]


def test_points_lie_on_the_line_that_their_numbers_lie_on():
    places = circles(curves_svg([Curve("a", [0, 1, 2, 4], [5.0, 7.0, 9.0, 13.0])]))
    (x0, y0), (x1, y1) = places[0], places[-1]
    for x, y in places:
        assert (y - y0) * (x1 - x0) == pytest.approx((y1 - y0) * (x - x0), abs=60)  # rounded to a tenth of a pixel
    assert x0 < x1 and y0 > y1  # to the right and, pixels counting down, up
    assert places[1][0] == pytest.approx(x0 + (x1 - x0) / 4, abs=0.1)


def test_what_is_not_finite_leaves_a_gap():
    svg = curves_svg([Curve("a", [0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 2.0, math.inf])])
    assert len(circles(svg)) == 3
    lines = [p.get("d") for p in parsed(svg).iter(f"{SVG}path") if p.get("fill") == "none"]
    assert [d.count(",") for d in lines] == [2, 1]
    assert "nan" not in svg.replace("nan at", "") and "inf" not in svg


def test_a_band_spans_its_ends():
    svg = curves_svg([Curve("a", [0, 1], [1.0, 2.0], low=[0.0, 1.0], high=[2.0, 3.0])])
    band = next(p.get("d") for p in parsed(svg).iter(f"{SVG}path") if p.get("opacity") == ".18")
    heights = [float(point.split(",")[1]) for point in band.strip("MZ").split()]
    (_, first), (_, second) = circles(svg)
    assert heights[0] - first == pytest.approx(second - first, abs=0.2)  # 1 above, as the second point is
    assert heights[3] - first == pytest.approx(first - second, abs=0.2)


def test_bars_are_as_long_as_their_values_and_whiskers_as_their_intervals():
    svg = intervals_svg(
        [("a", Estimate(2.0, 1.0, 3.0, 9)), ("b", Estimate(4.0, 3.5, 4.5, 9))], reference=("people", 4.2)
    )
    one, other = (float(r.get("width")) for r in parsed(svg).iter(f"{SVG}rect"))
    assert other == pytest.approx(2 * one, abs=0.2)
    whisker = next(p.get("d") for p in parsed(svg).iter(f"{SVG}path") if p.get("stroke-width") == "1.6")
    low, high = (float(part) for part in (whisker[1:].split(",")[0], whisker.split("H")[1].split("M")[0]))
    assert high - low == pytest.approx(one, abs=0.2)  # 1 to 3 is as long as 0 to 2


def test_figures_without_an_interval_or_a_value_are_still_listed():
    unsure, unknown = Estimate(2.0, -math.inf, math.inf, 1), Estimate(math.nan, math.nan, math.nan, 3)
    svg = intervals_svg([("one run", unsure), ("none", unknown)])
    assert len(list(parsed(svg).iter(f"{SVG}rect"))) == 1 and "2 (n = 1)" in svg and ">none<" in svg
    assert parsed(intervals_svg([])) is not None and parsed(curves_svg([])) is not None


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><svg onload=x>', "a & b", "x" * 300])
def test_names_stay_text(name):
    for svg in (
        curves_svg([Curve(name, [0], [1.0])], x_label=name, y_label=name, title=name),
        intervals_svg([(name, Estimate(1.0, 0.0, 2.0, 5))], label=name, reference=(name, 1.0), title=name),
    ):
        tags = {element.tag.removeprefix(SVG) for element in parsed(svg).iter()}
        assert tags <= {"svg", "path", "text", "circle", "rect", "g", "title"}
        assert not any(attribute.startswith("on") for element in parsed(svg).iter() for attribute in element.attrib)


def test_a_curve_of_uneven_lengths_is_refused():
    with pytest.raises(ConfigError, match="curve 'a': got 2 x, 1 y"):
        Curve("a", [0, 1], [1.0])
    with pytest.raises(ConfigError, match="either both ends or none"):
        Curve("a", [0, 1], [1.0, 2.0], low=[0.0, 0.0])


def test_a_painted_scene_has_its_values_on_the_ground_and_under_its_bodies():
    ground, body = Shape("rect", ((0.0, 0.0), (4.0, 2.0))), Shape("circle", ((1.0, 1.0),), 0.5)
    scene = painted(Scene(0.0, 0.0, 4.0, 2.0, (ground, body), "now"), torch.tensor([[0.0, 1.0], [3.0, 2.0]]), "agent_0")
    assert scene.shapes[0] == ground and scene.shapes[-1] == body
    cells = {shape.points[0]: shape.colour for shape in scene.shapes[1:-1]}
    assert list(cells) == [(0, 0), (2, 0), (0, 1), (2, 1)]  # rows from the bottom
    assert cells[0, 0] == "#1c2060" and cells[0, 1] == "#fde74c"
    light = [sum(int(c[k : k + 2], 16) * w for k, w in ((1, 0.3), (3, 0.59), (5, 0.11))) for c in cells.values()]
    assert light[0] < light[1] < light[3] < light[2]
    assert scene.caption == "now reward of agent_0: 0 blue, 3 yellow"
    flat = painted(Scene(0.0, 0.0, 1.0, 1.0, ()), torch.full((2, 2), 5.0), "all")
    assert len({shape.colour for shape in flat.shapes}) == 1
