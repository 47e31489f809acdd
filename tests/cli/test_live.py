"""What a search shows, on a pseudo-terminal and in a file."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import fcntl
import io
import json
import logging
import os
from pathlib import Path
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from typing import Any

import optuna
from optuna.trial import TrialState
import pyte
import pytest
from rich.console import Console

from optuna_llmbo._util.duration import format_duration
from optuna_llmbo.cli import events
from optuna_llmbo.cli import live
from optuna_llmbo.cli.budget import Budget
from optuna_llmbo.cli.live import LiveView
from optuna_llmbo.cli.sparkline import sparkline
from optuna_llmbo.cli.summary import summary
from optuna_llmbo.cli.terminal import warn
from optuna_llmbo.study.progress import Goal
from optuna_llmbo.study.progress import progress_of
from optuna_llmbo.study.training_progress import TrainingProgress
from tests.lora.conftest import rows


LOSS = (Goal("loss", "minimize"),)
TWO = (Goal("gsm8k", "maximize", "answers that are right"), Goal("seconds", "minimize"))


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 5, ""),
        ([2.0], 5, "▁"),
        ([1.0, 1.0], 5, "▁▁"),
        ([8.0, 1.0, 4.5], 5, "█▁▅"),
        ([4.0, 4.0, 2.0, 2.0, 0.0, 0.0], 3, "█▅▁"),
        ([1.0, float("nan"), float("inf"), 2.0], 5, "▁█"),
        ([1.0, 2.0], 0, ""),
    ],
)
def test_sparkline(values: list[float], width: int, expected: str) -> None:
    assert sparkline(values, width) == expected
    plain = sparkline(values, width, ascii_only=True)
    assert plain.isascii() and len(plain) == len(expected)


def study_of(*ends: tuple[TrialState, float | None, dict[str, Any]]) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for state, value, attributes in ends:
        trial = study.ask({"rank": optuna.distributions.IntDistribution(1, 8)})
        for name, one in attributes.items():
            trial.set_user_attr(name, one)
        if state is TrialState.PRUNED and value is not None:
            trial.report(value, 50)
        complete = value if state is TrialState.COMPLETE else None
        study.tell(trial, complete, state=state)
    return study


ENDS = (  # type: ignore[var-annotated]
    (TrialState.COMPLETE, 3.0, {"is_default": True, "seconds": 2.0}),
    (TrialState.PRUNED, 4.0, {}),
    (TrialState.PRUNED, 9.0, {"infeasible": True, "pruned_reason": "the loss explodes"}),
    (TrialState.FAIL, None, {}),
    (TrialState.COMPLETE, 2.0, {}),
)


def in_a_file(show: Callable[[Console], None], **options: Any) -> str:
    file = io.StringIO()
    show(Console(file=file, **options))
    return file.getvalue()


def test_lines_of_a_file() -> None:
    """One line a trial, whatever its length, and nothing that moves a cursor."""
    study = study_of(*ENDS)

    def show(console: Console) -> None:
        with LiveView(console, study, LOSS, Budget(6)) as view:
            view.on_step(TrainingProgress(5, 0.5, 2.5))
            for trial in study.trials:
                view.on_trial(study, trial)

    lines = in_a_file(show).splitlines()
    for line, words in zip(
        lines,
        ("loss   3.0000     2 s", "pruned 4.0000 at 50%", "infeasible (the loss explodes)",
         "failed", "loss   2.0000"),
        strict=True,
    ):  # fmt: skip
        assert words in line and "best 2.0000 (#4)" in line and "rank=" in line
        assert all(character.isprintable() for character in line)


def test_a_broken_constraint_is_the_reason() -> None:
    study = optuna.create_study()
    trial = optuna.trial.create_trial(value=1.0, system_attrs={"constraints": [0.5]})
    study.add_trial(trial)

    def show(console: Console) -> None:
        with LiveView(console, study, LOSS, Budget(2)) as view:
            view.on_trial(study, study.trials[0])

    assert "infeasible (violated constraints" in in_a_file(show)


def test_counts_and_best() -> None:
    now = progress_of(study_of(*ENDS))
    assert now.counts == {"complete": 2, "pruned": 1, "infeasible": 1, "failed": 1}
    assert now.n_finished == 4 and [trial.number for trial in now.best] == [4]
    larger = optuna.create_study(direction="maximize")
    for value in (0.2, 0.6, 0.4):
        larger.add_trial(optuna.trial.create_trial(value=value))
    assert progress_of(larger).best[0].value == 0.6


def test_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 trials 2 and two halves of trials took 60 s: the 7 that are left take 140 s."""
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]
    study = optuna.create_study()
    view = LiveView(Console(quiet=True), study, LOSS, Budget(10))
    with view:
        view.on_step(TrainingProgress(0, 0.4, 1.0))
        clock[0] = 10.0
        assert "left" not in view._status()  # too little to go by
        for i in range(2):
            study.add_trial(optuna.trial.create_trial(value=float(i)))
            view.on_trial(study, study.trials[-1])
        for number in (2, 3):
            view.on_step(TrainingProgress(number, 0.5, 1.0))
        clock[0] = 60.0
        assert view._status().endswith("best loss 0.0000 (#0), about 2 min left")
    assert format_duration(59.4) == "59 s" and format_duration(5400) == "1.5 h"


class Terminal:
    """A pseudo-terminal and what its screen shows."""

    def __init__(self, columns: int) -> None:
        self.leader, self.follower = pty.openpty()
        self._screen = pyte.HistoryScreen(columns, 24, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""

    def read(self) -> None:
        """Until its other end is closed."""
        while True:
            try:
                data = os.read(self.leader, 65536)
            except OSError:
                return
            if not data:
                return
            self.raw += data
            self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        above = [
            "".join(line[x].data for x in range(self._screen.columns))
            for line in self._screen.history.top
        ]
        return [line.rstrip() for line in [*above, *self._screen.display]]


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Terminal]]:
    """Show something on a pseudo-terminal, in this process."""

    def run(show: Callable[[Console], None], columns: int = 80, **environment: str) -> Terminal:
        terminal = Terminal(columns)
        reader = threading.Thread(target=terminal.read)
        reader.start()
        encoding = environment.pop("encoding", "utf-8")
        settings = {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
        with os.fdopen(terminal.follower, "w", encoding=encoding) as file:
            show(Console(file=file, _environ=settings))
        reader.join()
        os.close(terminal.leader)
        return terminal

    yield run


def running(console: Console, *, leave: bool = True) -> None:
    """Two trials at once, one of which has fallen from 5 to 1."""
    study = study_of(*ENDS)
    view = LiveView(console, study, LOSS, Budget(9))
    for i in range(5):
        view.on_step(TrainingProgress(7, (i + 1) / 8, 5.0 - i))
    view.on_step(TrainingProgress(8, 1.0, 4.0))
    if leave:
        with view:
            pass
    else:
        console.print(view)


@pytest.mark.parametrize("columns", [40, 80])
def test_what_runs(on_terminal: Callable[..., Terminal], columns: int) -> None:
    lines = on_terminal(lambda console: running(console, leave=False), columns).lines
    shown = [line for line in lines if line]
    assert " ".join(shown[:-2]).split(", about")[0] == (
        "4 of 9 trials, 2 complete, 1 pruned, 1 infeasible, 1 failed, best loss 2.0000 (#4)"
    )
    assert shown[-2].startswith("#7 ") and shown[-2].endswith("█▆▅▃▁") and "62%" in shown[-2]
    assert shown[-1].startswith("#8 ") and "measuring" in shown[-1]


def test_nothing_of_it_is_left(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(running)
    assert b"#7" in terminal.raw and not any(terminal.lines)


def test_warnings_stand_above_it(
    on_terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(console: Console) -> None:
        monkeypatch.setattr(sys, "stderr", console.file)
        handler = logging.StreamHandler(console.file)
        logger.addHandler(handler)
        view = LiveView(console, study_of(*ENDS), LOSS, Budget(9))
        view.on_step(TrainingProgress(7, 0.5, 4.0))
        with view:
            optuna.logging.get_logger("optuna.test").warning("the disk is nearly full")
            warn("trial #3 crashed")
        assert handler.stream is console.file
        logger.removeHandler(handler)
        monkeypatch.undo()

    logger = logging.getLogger("optuna")
    lines = [line for line in on_terminal(show).lines if line]
    assert lines == ["the disk is nearly full", "trial #3 crashed"]


def test_an_encoding_without_blocks(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(lambda console: running(console, leave=False), encoding="latin-1")
    assert any(line.startswith("#7 ") and line.endswith("#+=-_") for line in terminal.lines)


def test_a_dumb_terminal_and_no_color(on_terminal: Callable[..., Terminal]) -> None:
    assert b"\x1b" not in on_terminal(running, TERM="dumb").raw
    colorless = on_terminal(lambda console: running(console, leave=False), NO_COLOR="1").raw
    assert b"38;5" not in colorless and b"38;5" in on_terminal(running).raw


def test_a_file_that_is_to_have_colors_has_no_bars() -> None:
    text = in_a_file(running, _environ={"FORCE_COLOR": "1", "TERM": "xterm-256color"})
    assert text == ""


def printed(parts: list[Any]) -> str:
    def show(console: Console) -> None:
        for part in parts:
            console.print(part, soft_wrap=True)

    return in_a_file(show, width=200)


def test_the_summary() -> None:
    text = printed(summary(study_of(*ENDS), LOSS, 3.5))
    for words in ("(minimize)", "base model", "3.5000", "default (#0)", "best found (#4)",
                  "2.0000 +1.5000 +1.0000", "1 infeasible"):  # fmt: skip
        assert words in " ".join(text.split())


@pytest.mark.parametrize(
    ("told", "since"),
    [((0.5, 0.9), None), ((0.5, 0.125), 6), ((), None)],
    ids=["right", "overruled", "none"],
)
def test_whether_knowledge_has_been_overruled(told: tuple[float, ...], since: int | None) -> None:
    study = study_of(*ENDS, *((TrialState.COMPLETE, 2.5, {"llmbo:trust": one}) for one in told))
    text = printed(summary(study, LOSS, 3.5))
    line = "Knowledge: overruled from trial #6 on (trusted 0.12)"
    assert (line in text) == ("Knowledge" in text) == (since is not None)
    event = events.summary(study, LOSS, 3.5, ended="complete")
    assert event["trust"] == (told[-1] if told else None) and event["overruled_from"] == since


def test_the_summary_of_a_metric_to_maximize() -> None:
    study = optuna.create_study(direction="maximize")
    for value, is_default in ((0.25, True), (0.75, False), (0.5, False)):
        attributes = {"is_default": is_default}
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attributes))
    text = printed(summary(study, TWO[:1], 3.5))
    assert "answers that are right (maximize)" in text and "base" not in text
    assert "best found (#1) 0.7500 +0.5000" in " ".join(text.split())


def test_the_summary_of_a_pareto_front() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in ([0.5, 10.0], [0.75, 20.0], [0.25, 30.0]):
        study.add_trial(optuna.trial.create_trial(values=values))
    text = printed(summary(study, TWO, 3.5))
    assert "Pareto front (#0)" in text and "Pareto front (#1)" in text and "(#2)" not in text
    empty = optuna.create_study(directions=["maximize", "minimize"])
    assert "0 complete" in printed(summary(empty, TWO, 3.5))


SEARCH = [sys.executable, "-c", "from optuna_llmbo import cli; cli.main()", "tune"]


@pytest.mark.long
def test_whole_searches(tiny_llm: Path, tmp_path: Path) -> None:
    """On a pseudo-terminal of 40 columns, and with `--json` into pipes."""
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(200)))
    shared: dict[str, Any] = {
        "model": tiny_llm, "train": data, "proxy": 0.9, "reports": 2, "trials": 3,
        "sampler": "random", "device": "cpu", "epochs": 4,
    }  # fmt: skip

    def start(name: str, *more: str, **channels: Any) -> subprocess.Popen[bytes]:
        options = {**shared, "storage": f"sqlite:///{tmp_path}/{name}.db"}
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        environment |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*SEARCH, *words, *more], env=environment, **channels)

    terminal = Terminal(40)
    fcntl.ioctl(terminal.follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    shown = start("shown", "--parallel", "2", stdout=terminal.follower, stderr=terminal.follower)
    read = start("read", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(terminal.follower)
    terminal.read()
    text, warnings = read.communicate()
    assert shown.wait() == read.returncode == 0, warnings

    assert terminal.raw.count(b"\x1b[?25h") == 1  # the cursor is there again
    assert b"% " in terminal.raw and "▁".encode() in terminal.raw
    lines = "\n".join(terminal.lines)
    assert "trial  3/3 #" in lines and "best found" not in lines.split("Study")[0]
    assert "%" not in lines and "choosing" not in lines  # the bars are gone

    events = [json.loads(line) for line in text.splitlines()]
    assert [event["event"] for event in events] == [
        "start", "trial", "estimate", "trial", "trial", "summary",
    ]  # fmt: skip
    assert events[0]["metrics"] == [{"name": "loss", "direction": "minimize"}]
    trials = [event for event in events if event["event"] == "trial"]
    assert [event["finished"] for event in trials] == [1, 2, 3]
    best = min(trials, key=lambda event: event["values"]["loss"])
    assert events[-1]["best"][0]["number"] == best["number"]
    assert set(best["reports"]) == {"50", "100"} and best["params"]["rank"] > 0
    assert events[-1]["counts"]["complete"] == 3 and not events[-1]["interrupted"]
    assert warnings == b""
    guide = (Path(__file__).parents[2] / "docs" / "lora.md").read_text()
    for event in events:
        (row,) = re.findall(rf'^\| `"{event.pop("event")}"` \| (.*)', guide, re.MULTILINE)
        assert event.keys() <= set(re.findall(r"`(\w+)`", row))
