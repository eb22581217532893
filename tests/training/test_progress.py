"""Speed, waiting and progress for people."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator

import pytest

from siamtransfer.features.progress import PassProgress
from siamtransfer.training.progress import StepProgress, Stopwatch, duration


class Clock:
    """A clock that tests move by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_stopwatch_tells_waiting_from_working(clock: Clock) -> None:
    def batches() -> Iterator[int]:
        for number in range(4):
            clock.now += 3.0  # decoding
            yield number

    watch, laps = Stopwatch(), []
    for number in watch.watch(batches()):
        clock.now += 1.0 if number < 2 else 9.0  # training
        watch.images += 16
        if number % 2:
            laps.append(watch.lap())
    assert laps == [(32 / 8, 6 / 8), (32 / 24, 6 / 24)]


def test_an_end_of_data_is_no_error_and_an_error_in_it_comes_through(clock: Clock) -> None:
    def bad() -> Iterator[int]:
        yield 1
        raise ValueError("bad image")

    assert list(Stopwatch().watch([])) == []
    with pytest.raises(ValueError, match="bad image"):
        list(Stopwatch().watch(bad()))


def test_plain_lines_with_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress(steps=100, start=40, every=10)
    for step in range(41, 56):
        clock.now += 2.0
        progress.update(step, "loss 1")
    progress.say("a word")
    progress.close()
    assert capsys.readouterr() == ("", "[50/100] loss 1 · ETA 1:40\na word\n")


def test_slow_steps_are_told_from_the_first_on_with_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = StepProgress(steps=100, start=0, every=50)
    for step in range(1, 8):
        clock.now += 60.0 if step == 1 else 10.0  # the first warms up
        if progress.tick(step):
            progress.update(step, f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "[1/100] loss 1 · ETA 1:39:00",
        "about 16:10 left: 10 s a step, 97 steps; checks and saves come on top",
        "[3/100] loss 3 · ETA 16:10",
        "[5/100] loss 5 · ETA 15:50",
        "[7/100] loss 7 · ETA 15:30",
    ]


def test_fast_steps_get_an_estimate_after_three_and_lines_every_so_many(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = StepProgress(steps=1000, start=0, every=5)
    for step in range(1, 12):
        clock.now += 0.1
        if progress.tick(step):
            progress.update(step, "loss")
    assert capsys.readouterr().err.splitlines() == [
        "about 1:40 left: 0.1 s a step, 996 steps; checks and saves come on top",
        "[5/1000] loss · ETA 1:40",
        "[10/1000] loss · ETA 1:39",
    ]
    short = StepProgress(steps=100, start=0, every=50)
    for step in range(1, 50):
        clock.now += 0.1
        assert not short.tick(step)
    assert capsys.readouterr().err == "", "a run of ten seconds needs no estimate"


def test_looking_at_the_speed_ends_no_lap(clock: Clock) -> None:
    watch = Stopwatch()
    watch.images, clock.now = 30, clock.now + 10
    assert watch.look() == watch.look() == (3.0, 0.0)
    clock.now += 5
    assert watch.lap() == (2.0, 0.0)


def test_a_pass_over_images_tells_early_that_it_is_long(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    long, short = (PassProgress(name, total, shown=True) for name, total in (("long", 1000), ("short", 25)))
    for done in range(1, 9):
        clock.now += 6.0
        long.done(6 * done)
        if done < 3:
            short.done(10 * done)
    assert capsys.readouterr().err.splitlines() == [
        "long: 6 of 1000 images · 1 images/s · ETA 0:16:34",
        "short: 20 of 25 images · 1.67 images/s · ETA 0:00:03",
        "long: 18 of 1000 images · 1 images/s · ETA 0:16:22",
        "long: 30 of 1000 images · 1 images/s · ETA 0:16:10",
        "long: 42 of 1000 images · 1 images/s · ETA 0:15:58",
    ]


def test_the_last_step_is_always_told_and_other_ranks_are_silent(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = StepProgress(steps=7, start=0, every=10)
    progress.update(7, "end")
    quiet = StepProgress(steps=7, start=0, every=1, shown=False)
    quiet.update(7, "end")
    quiet.say("a word")
    quiet.close()
    assert capsys.readouterr().err == "[7/7] end · ETA 0:00\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    progress = StepProgress(steps=10, start=0, every=5)
    progress.update(3, "loss 0.5")
    progress.say("[odd] words are not markup")
    progress.close()
    progress.close()
    text = terminal.getvalue()
    assert "loss 0.5" in text
    assert "[odd] words are not markup" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03"), (100 * 3600, "100:00:00")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
