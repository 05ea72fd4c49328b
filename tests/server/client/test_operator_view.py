from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from protos import boulton_pb2 as pb
from server.client.operator import point_of, status_line
from server.client.operator_view import OperatorView, latency_text, power_text, revenue_text, sparkline
from server.commands import watch
from server.commands.explain import decision_lines
from server.commands.watch import plain_lines

FAST = pb.OperatingPoint(batch_limit=64, sm_clock_mhz=1000)
SMALL = pb.OperatingPoint(batch_limit=8, sm_clock_mhz=500, max_delay_ms=2.0)


def decision(point: pb.OperatingPoint = FAST, **given: object) -> pb.Decision:
    window = pb.Window(
        duration_s=2.0,
        point=point,
        arrived=10,
        completed=9,
        late=1,
        refused=2,
        latency_p99_ms=12.34,
        energy_j=100.0,
        energy_source="simulated",
    )
    revenue = pb.Revenue(income=1.0, penalty=0.5, energy_cost=0.25, total=0.25, form="profit")
    filled = {
        "model": "net",
        "window": window,
        "revenue": revenue,
        "point": point,
        "reason": "because",
        **given,
    }
    return pb.Decision(**filled, line="net did well | last 2.0 s at large")


def status(**given: object) -> pb.Status:
    return pb.Status(
        governed=True,
        model="net",
        policy="boulton",
        gpu_uuid="GPU-1",
        target=FAST,
        targets=pb.Targets(slo_p99_ms=50.0),
        batch_limits=[1, 8, 64],
        sm_clocks_mhz=[500, 1000],
        **given,
    )


def drawn(view: OperatorView, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.render())
    return console.file.getvalue()


def test_the_view_shows_what_holds_and_how_it_went() -> None:
    view = OperatorView(status(), [decision(SMALL)])
    view.add(decision(FAST), status(paused=True))
    shown = drawn(view)
    assert "net on GPU-1: paused; now batch <= 64 at 1000 MHz" in shown
    assert "450 an hour" in shown
    assert "p99 12.3 ms (SLO 50 ms)" in shown
    assert "50.0 W (simulated)" in shown
    assert "10 arrived, 9 answered, 3 late, 0 waiting" in shown
    assert "▂█" in shown
    assert "▁█" in shown
    assert "because" in shown


def test_the_view_before_the_first_decision_and_on_a_narrow_terminal() -> None:
    assert "net on GPU-1: governed by boulton" in drawn(OperatorView(status(), []))
    assert all(len(line) <= 30 for line in drawn(OperatorView(status(), [decision()]), 30).splitlines())


def test_what_cannot_be_kept_is_in_view() -> None:
    assert "cannot be kept: too tight" in drawn(OperatorView(status(), [decision(infeasible="too tight")]))


def test_text_of_the_server_cannot_steer_the_terminal() -> None:
    nasty = decision(reason="[red]\x1b[2J", error="\x1b]0;x\x07", learned="\x1b")
    assert "\x1b" not in drawn(OperatorView(status(), [nasty]))
    assert "[red]" in drawn(OperatorView(status(), [nasty]))
    nasty.line = "\x1b[2J"
    assert list(plain_lines([nasty])) == ["net: \\x1b[2J"]


class FakeOperator:
    def status(self) -> pb.Status:
        return status()

    def decisions(self, count: int) -> list[pb.Decision]:
        return [decision(SMALL)]

    def watch(self) -> Iterator[pb.Decision]:
        yield decision(FAST, reason="the first")
        yield decision(FAST, reason="the second")


def test_on_a_terminal_the_view_is_drawn_anew_for_each_decision() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    watch._watch(console, FakeOperator(), None)
    shown = console.file.getvalue()
    assert shown.count("boulton watch") >= 3
    assert "the second" in shown


def test_piped_each_decision_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    watch._watch(Console(file=io.StringIO(), force_terminal=False), FakeOperator(), 1)
    assert capsys.readouterr().out == "net: net did well | last 2.0 s at large\n"


def test_a_sparkline_spans_the_legal_range() -> None:
    assert sparkline([500, 750, 1000], [500, 1000]) == "▁▅█"
    assert sparkline([3, 3], [3]) == "▁▁"
    assert sparkline([0, 2000], [500, 1000]) == "▁█"
    assert sparkline([], []) == ""


def test_nothing_is_shown_that_was_not_measured() -> None:
    assert power_text(pb.Window(duration_s=1.0, energy_source="not-measured")) == "not measured"
    assert latency_text(pb.Window(), 5.0) == "nothing answered (SLO 5 ms)"
    unmeasured = decision(revenue=pb.Revenue(total=1.0, form="profit"))
    assert revenue_text(unmeasured) == "1800 an hour without energy"
    assert revenue_text(decision(revenue=pb.Revenue(total=-2.5, energy_cost=2.5, form="edp"))) == "edp -2.5"


def test_settings_and_states_are_read() -> None:
    assert str(point_of(SMALL)) == "batch <= 8 after 2 ms at most at 500 MHz"
    assert point_of(pb.OperatingPoint(batch_limit=8)).sm_clock_mhz is None
    assert status_line(pb.Status()).startswith("no model is governed")
    assert "pinned at batch <= 8" in status_line(status(pinned=SMALL))


def test_the_status_says_what_is_saved_and_how_surely() -> None:
    assert "saves" not in status_line(status())
    assert "not known yet (3 comparisons)" in status_line(status(saving=pb.Saving(comparisons=3)))
    saving = pb.Saving(
        comparisons=9,
        revenue_per_s=pb.Interval(mean=0.002, low=0.001, high=0.003),
        power_w=pb.Interval(mean=12.0, low=10.0, high=14.0),
        energy_source="rapl",
    )
    line = status_line(status(saving=saving))
    assert "saves 7.2 (95 %: 3.6 .. 10.8) an hour and 12 (95 %: 10 .. 14) W (rapl)" in line
    assert "by 9 comparisons with the default" in line
    scored = status(saving=saving)
    scored.targets.form = "edp"
    assert "saves 0.002 (95 %: 0.001 .. 0.003) J s an image (edp) and 12" in status_line(scored)


def test_a_decision_is_explained_with_its_runners_up() -> None:
    explained = decision(
        predicted_revenue_per_s=0.001,
        predicted_p99_ms=12.0,
        predicted_power_w=70.0,
        alternatives=[pb.Prediction(point=SMALL, revenue_per_s=0.0005, p99_ms=30.0)],
        infeasible="too tight",
        learned="batches took longer",
        alarm=pb.Alarm(queued_images=40, refuge=FAST, rate_per_s=400.0, burst_images=9.2),
        error="no permission",
    )
    lines = list(decision_lines(explained))
    assert lines[0].endswith("net: batch <= 64 at 1000 MHz")
    text = "\n".join(lines)
    assert "cannot be kept: too tight" in text
    assert "once more than 40 images wait, or 9 more come than 400 a second: batch <= 64 at 1000 MHz" in text
    assert "learned   batches took longer" in text
    assert "refused   no permission" in text
    assert lines[-1] == "  measured  last 2.0 s at large"
    (choice,) = (line.split() for line in lines if line.startswith("  choice"))
    assert choice[-3:] == ["3.6", "12.0", "70"]
    (rival,) = (line.split() for line in lines if line.startswith("  next 1"))
    assert rival[-3:] == ["1.8", "30.0", "-"]


def test_a_decision_without_predictions_has_no_table() -> None:
    assert not any("expected" in line for line in decision_lines(decision()))
    runner_up = decision(predicted_revenue_per_s=0.001, runner_up=SMALL, runner_up_revenue_per_s=0.0005)
    assert any(line.startswith("  next 1") for line in decision_lines(runner_up))
