"""curve: what is left of the facts at each rate, measured on samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm.auto import tqdm

from ctxkit.compression.distortion.metrics import Metric, Sample
from ctxkit.compression.prepared import Compression, prepare
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.errors import MissingExtra
from ctxkit.protocols import Counter

RATES = (0.2, 0.33, 0.5, 0.7)


@dataclass(frozen=True)
class Point:
    """One compressor at one rate by one metric.

    rate: asked for, of each sample's tokens. achieved: mean rate of the outputs. score: mean over `samples` samples.
    """

    compressor: str
    metric: str
    rate: float
    achieved: float
    score: float
    samples: int


@dataclass(frozen=True)
class Curve:
    """Distortion of some compressors over the rate."""

    points: tuple[Point, ...]

    @property
    def rates(self) -> list[float]:
        return sorted({point.rate for point in self.points})

    def score(self, compressor: str, metric: str, rate: float) -> float:
        """Raises KeyError where that was not measured."""
        for point in self.points:
            if (point.compressor, point.metric, point.rate) == (compressor, metric, rate):
                return point.score
        raise KeyError((compressor, metric, rate))

    def __str__(self) -> str:
        """A table for the terminal: a row for each metric and compressor, a column for each rate."""
        rows = [[metric, name, *scores] for metric, name, scores in self._rows()]
        header = ["metric", "compressor", *(f"{rate:.0%}" for rate in self.rates)]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        return "\n".join(_line(row, widths) for row in [header, *rows])

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{cell}</th>" for cell in ["metric", "compressor", *(f"{r:.0%}" for r in self.rates)])
        rows = (f"<tr><td>{escape(m)}</td><td>{escape(n)}</td>{_cells(scores)}</tr>" for m, n, scores in self._rows())
        return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure, a panel for each metric; also written to `path` where given. Raises MissingExtra."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtra("matplotlib", "plot") from error
        metrics = list(dict.fromkeys(point.metric for point in self.points))
        figure = Figure(figsize=(5.2 * max(len(metrics), 1), 3.8), layout="constrained")
        for metric, axes in zip(metrics, figure.subplots(1, max(len(metrics), 1), squeeze=False)[0], strict=False):
            self._draw(axes, metric)
        if path is not None:
            figure.savefig(path)
        return figure

    def _draw(self, axes: Any, metric: str) -> None:
        for name in dict.fromkeys(point.compressor for point in self.points):
            own = [point for point in self.points if (point.compressor, point.metric) == (name, metric)]
            axes.plot([p.achieved for p in own], [p.score for p in own], marker="o", markersize=4, label=name)
        axes.set(title=metric, xlabel="share of the tokens that is left", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)

    def _rows(self) -> Iterator[tuple[str, str, list[str]]]:
        scores = {(p.metric, p.compressor, p.rate): p.score for p in self.points}
        for metric, name in dict.fromkeys((point.metric, point.compressor) for point in self.points):
            cells = (scores.get((metric, name, rate)) for rate in self.rates)
            yield metric, name, ["-" if score is None else f"{score:.3f}" for score in cells]


def curve(
    compressors: TextCompressor | Sequence[TextCompressor],
    corpus: Iterable[Sample],
    metrics: Metric | Sequence[Metric],
    *,
    rates: Sequence[float] = RATES,
    counter: Counter,
    progress: bool = False,
) -> Curve:
    """Compresses each sample to each rate of its tokens and measures what is left.

    A compressor reads each sample once for all rates. A metric that has nothing to measure in a sample leaves it out;
    one that finds nothing in any has no points.
    """
    asked = [compressors] if isinstance(compressors, TextCompressor) else list(compressors)
    measures: list[Metric] = list(metrics) if isinstance(metrics, Sequence) else [metrics]
    samples = list(corpus)
    points: list[Point] = []
    for compressor in asked:
        shown = tqdm(samples, desc=compressor.name, disable=not progress)
        outputs = [_outputs(sample, compressor, rates, counter) for sample in shown]
        points += [
            point
            for metric in measures
            for i, rate in enumerate(rates)
            for point in _point(compressor.name, metric, rate, samples, [output[i] for output in outputs])
        ]
    return Curve(tuple(points))


def _outputs(sample: Sample, compressor: TextCompressor, rates: Sequence[float], counter: Counter) -> list[Compression]:
    prepared = prepare(sample.texts, compressor, question=sample.question, counter=counter)
    return [prepared.at(rate=rate) for rate in rates]


def _point(
    name: str, metric: Metric, rate: float, samples: Sequence[Sample], outputs: Sequence[Compression]
) -> Iterator[Point]:
    measured = [(metric(sample, output), output.rate) for sample, output in zip(samples, outputs, strict=True)]
    scored = [(score, achieved) for score, achieved in measured if score is not None]
    if scored:
        mean, achieved = fmean(score for score, _ in scored), fmean(achieved for _, achieved in scored)
        yield Point(name, metric.name, rate, achieved, mean, len(scored))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*names, *numbers])


def _cells(scores: Iterable[str]) -> str:
    return "".join(f'<td style="text-align:right">{score}</td>' for score in scores)
