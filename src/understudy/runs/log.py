"""What a run says of itself: `metrics.jsonl` for numbers, `events.jsonl` for what happened when, a line on the screen.

Metrics hold nothing that hangs on the clock: a run that was killed and resumed writes the same bytes as one that was
not. Times stand in the events.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import RunError, missing_extra
from understudy.core.files import refusal

Row = dict[str, float | int | None]


@dataclass
class Averages:
    """Means of scalars between two lines of the log, summed where they are: nothing waits for a device until `take`.

    NaN says that an update has nothing to tell (no episode ended, say): it does not count.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, stats: Mapping[str, Tensor]) -> None:
        """Raises RunError where an update hands out something else than scalars."""
        for name, value in stats.items():
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise RunError(f"metric `{name}`: an update returns tensors of one number, got {_kind(value)}.")
            value = value.detach().reshape(()).double()
            told = ~value.isnan()
            self.sums[name] = value.where(told, 0.0) + self.sums.get(name, 0)
            self.counts[name] = told + self.counts.get(name, 0)

    def take(self) -> Row:
        """The mean of each name since the last `take`, over the updates that gave one; None where none did."""
        if not self.sums:
            return {}
        sums, counts = (torch.stack([x.cpu() for x in each.values()]) for each in (self.sums, self.counts))
        means = zip(self.sums, (sums / counts).tolist(), strict=True)
        row: Row = {name: None if math.isnan(mean) else mean for name, mean in means}
        self.sums, self.counts = {}, {}
        return row


class Lines:
    """A file of JSON lines, one a record. Appending, and going back to where a checkpoint was made."""

    def __init__(self, path: Path, keep: int | None = None) -> None:
        """Continue `path` after its first `keep` bytes; after its last whole line where None."""
        content = path.read_bytes() if path.exists() else b""
        self.path, self.position = path, content.rfind(b"\n") + 1 if keep is None else keep
        if self.position > len(content):
            raise RunError(f"{path} has {len(content):,} bytes, but had {keep:,} at the checkpoint: was it edited?")
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._handle, self.position)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line. NaN and infinities become null. Raises RunError on a full disk, leaving only whole lines."""
        plain = {name: _finite(value) for name, value in record.items()}
        data = (json.dumps(plain, allow_nan=False, ensure_ascii=False) + "\n").encode()
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._handle, data[written:], self.position + written)
        except OSError as error:
            os.ftruncate(self._handle, self.position)
            raise refusal(self.path, error, len(data)) from error
        self.position += len(data)

    def sync(self) -> int:
        """Make every line durable; returns the position behind the last one."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise refusal(self.path, error, self.position) from error
        return self.position

    def close(self) -> None:
        os.close(self._handle)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, [] where there is none; a last line that a kill cut off is left out.

    Raises:
        RunError: any other line is no JSON object.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise RunError(f"{path}, line {number} is no record: {line[:60]!r}.")
        records.append(record)
    return records


def last_values(rows: list[Row]) -> Row:
    """The latest value of each metric that is not null."""
    return {name: value for row in rows for name, value in row.items() if value is not None}


def column(rows: list[Row], name: str) -> tuple[list[int], list[float]]:
    """(updates, values) of one metric, for curves; rows without it are left out."""
    pairs = [(int(row["update"] or 0), float(value)) for row in rows if (value := row.get(name)) is not None]
    return [update for update, _ in pairs], [value for _, value in pairs]


def table(rows: list[Row]) -> list[tuple[str, str]]:
    """(name, last value) in four digits, for the screen."""
    return [(name, f"{value:.4g}") for name, value in last_values(rows).items() if value is not None]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Screen(AbstractContextManager["Screen"]):
    """Progress for whoever watches: a bar with the time left on a terminal, else a plain line now and then."""

    def __init__(self, title: str, updates: int | None, seconds: float | None, shown: bool) -> None:
        self.title, self.updates, self.seconds, self.shown = title, updates, seconds, shown
        self.began = self.printed = time.monotonic()
        self.first: int | None = None
        self.bar: Any = None

    def __enter__(self) -> "Screen":
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}")]
            self.bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self.task = self.bar.add_task(self.title, total=1.0, said="")
            self.bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    @contextmanager
    def before(self, what: str) -> Iterator[None]:
        """Say what goes on before the first update; no forecast counts it."""
        if self.bar is not None:
            self.bar.update(self.task, said=what)
        elif self.shown and what:
            print(f"{self.title}: {what}", file=sys.stderr, flush=True)
        yield
        self.began = time.monotonic()

    def show(self, update: int, row: Row, last: bool = False) -> None:
        """Say how far it is, the first metrics of `row`, and how long it will take."""
        if not self.shown:
            return
        clock = time.monotonic()
        if self.first is None:
            self.first = update
        spent, done = clock - self.began, update - self.first
        shares = [update / self.updates] if self.updates else []
        left = [spent / done * (self.updates - update)] if self.updates and done > 0 else []
        if self.seconds:
            shares.append(spent / self.seconds)
            left.append(self.seconds - spent)
        metrics = [f"{name} {value:.4g}" for name, value in row.items() if name != "update" and value is not None]
        of = f"/{self.updates:,}" if self.updates else ""
        said = " · ".join([f"update {update:,}{of}", *metrics[:3], *([f"{duration(min(left))} left"] if left else [])])
        if self.bar is not None:
            self.bar.update(self.task, completed=min(max(shares, default=0.0), 1.0), said=said)
        elif last or clock - self.printed > 10:
            self.printed = clock
            print(f"{self.title}: {said}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`1:02:03` or `02:03`."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def tensorboard(folder: Path, update: int) -> Any:
    """A TensorBoard writer that overwrites what an interrupted run wrote after `update`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing_extra("tensorboard", "tensorboard", "Writing for TensorBoard") from None
    return SummaryWriter(str(folder), purge_step=update + 1)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kind(value: Any) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
