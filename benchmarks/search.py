"""What a search finds, on recorded curves: the project's own suggestions and halving, in seconds.

python -m benchmarks.search --table benchmarks/tables/default.csv.xz \
    --space search_spaces/default.yaml --search tpe --search random --trials 16 32 64 --seeds 50 \
    --json found.json --plot found.png

No Ray and no training: K lanes whose epochs take as long as they take, trials that are suggested,
wait at rungs and end as in a deterministic sweep, and losses that come from a table. Between the
table's points a Gaussian process tells the curve, and each trial gets the noise that was measured
between seeds. A search is a sweep's `search` as YAML, a scheduler its `scheduler`:

    --search '{type: tpe, startup_trials: 4}' --scheduler '{type: asha, grace_epochs: 3}'

*Regret*: the true mean of the trial that the sweep names, less that of the best point there is, at
the epoch by which it counts. *Of random*: the median regret as a share of that of random draws with
the same scheduler. In brackets: 95 % of what resampling the seeds gives.

The table (CSV, also compressed): `point`, `seed`, `epoch`, the metric, and a column `params.KEY`
for each key of the space; rows of one point and seed are its curve. Other columns do not matter.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from benchmarks.workload import write_json
from search_spaces.ranges import draw, values
from search_spaces.schema import Choice, Fixed, SearchSpace
from tuning.config.space import searched_values
from tuning.config.sweep import ASHA, NoScheduler, Scheduler, Search, load_sweep
from tuning.history.record import EventKind, SweepRecord, trial_name
from tuning.search.halving import Halving
from tuning.search.suggestions import Suggestions

Array = NDArray[np.float64]
Params = dict[str, Any]
METRIC = "val_loss"
LEFT_OUT = 5  # folds
CANDIDATES = 4096  # among which the best point of a space is looked for


def features(space: SearchSpace, points: Sequence[Params]) -> Array:
    """[N, F] in [0, 1]: numbers by their place in the range, lists of numbers by their order."""
    columns: list[list[float]] = []
    for key, spec in space.root.items():
        if isinstance(spec, Fixed):
            continue
        if isinstance(spec, Choice):
            options = values(spec)
            if all(type(option) in (int, float) for option in options):
                order = sorted(options)
                place = {o: order.index(o) / max(1, len(order) - 1) for o in options}
                columns.append([place.get(p.get(key), 0.5) for p in points])
            else:
                columns += [[float(p.get(key) == option) for p in points] for option in options]
            continue
        scale = math.log if spec.log else float
        low, high = scale(spec.low), scale(spec.high)
        middle = math.exp((low + high) / 2) if spec.log else (low + high) / 2
        columns.append([(scale(p.get(key, middle)) - low) / (high - low) for p in points])
    return np.array(columns).T


class Curves:
    """The losses of every point of a space, from the recorded ones."""

    def __init__(self, table: pd.DataFrame, space: SearchSpace, base: Params) -> None:
        """``base``: the values of the training's own file, with which some searches begin."""
        self.space = space
        self.base = base
        self.epochs = int(table["epoch"].max())
        whole = table.groupby(["point", "seed"]).filter(lambda g: len(g) == self.epochs)
        curves = whole.pivot_table(index=["point", "seed"], columns="epoch", values=METRIC)
        first = whole.drop_duplicates("point").set_index("point")
        keys = [key for key in space.root if f"params.{key}" in table.columns]
        points = sorted(curves.index.unique("point"))
        self.points = [_point(first.loc[p], keys) for p in points]
        logs = np.log(curves)
        self.means = np.array([logs.loc[p].to_numpy().mean(0) for p in points])
        self._residuals, self._levels = self._noise(logs, points)
        self._inputs = features(space, self.points)
        self.error = self._left_out_error()
        self._models = self._fitted(np.arange(len(points)), range(self.epochs))
        self._known: dict[str, Array] = {}

    def _noise(self, logs: pd.DataFrame, points: Sequence[int]) -> tuple[list[Array], Array]:
        """Residual curves of the points with several seeds, and where each lies."""
        residuals, levels = [], []
        for point in points:
            seeds = logs.loc[point].to_numpy()
            if len(seeds) > 1:
                residuals.append((seeds - seeds.mean(0)) * math.sqrt(len(seeds) / (len(seeds) - 1)))
                levels.append(seeds.mean(0)[-1])
        return residuals, np.array(levels)

    def _fitted(
        self, rows: NDArray[np.int64], epochs: Sequence[int]
    ) -> list[GaussianProcessRegressor]:
        """One per epoch: the curve's length scales differ between early and late epochs."""
        models = []
        for epoch in epochs:
            kernel = ConstantKernel(1.0) * Matern(
                np.full(self._inputs.shape[1], 0.5), (0.05, 20.0), nu=2.5
            ) + WhiteKernel(1e-3, (1e-6, 1e-1))
            model = GaussianProcessRegressor(
                kernel, normalize_y=True, n_restarts_optimizer=1, random_state=0
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of length scales at their bounds
                models.append(model.fit(self._inputs[rows], self.means[rows, epoch]))
        return models

    def _left_out_error(self) -> float:
        """Root mean square error of the last epoch's log loss on points left out."""
        order = np.random.default_rng(0).permutation(len(self.points))
        errors: list[float] = []
        for fold in np.array_split(order, LEFT_OUT):
            rest = np.setdiff1d(order, fold)
            (model,) = self._fitted(rest, [self.epochs - 1])
            errors += list(model.predict(self._inputs[fold]) - self.means[fold, -1])
        return float(np.sqrt(np.mean(np.square(errors))))

    def mean(self, points: Sequence[Params]) -> Array:
        """[N, E]: the mean loss of each point after each epoch."""
        inputs = features(self.space, points)
        return np.exp(np.stack([model.predict(inputs) for model in self._models], axis=1))

    def mean_of(self, params: Params) -> Array:
        """[E] of one point."""
        key = json.dumps(params, sort_keys=True)
        if key not in self._known:
            self._known[key] = self.mean([params])[0]
        return self._known[key]

    def noisy(self, params: Params, rng: np.random.Generator) -> Array:
        """[E]: what one training of a point may come to; noise of a measured point like it."""
        mean = self.mean_of(params)
        if not self._residuals:
            return mean
        near = np.argsort(np.abs(self._levels - math.log(mean[-1])))[:6]
        residuals = self._residuals[rng.choice(near)]
        return mean * np.exp(residuals[rng.integers(len(residuals))])

    def best(self) -> float:
        """The lowest mean of an epoch, over random points of the space and the recorded ones."""
        drawn = _Uniform(np.random.default_rng(0))
        points = [draw(self.space, drawn) for _ in range(CANDIDATES)] + self.points
        return float(self.mean(points).min())


class _Uniform:
    """Draws evenly from each range, without a study that remembers all it was asked for."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        ends = (math.log(low), math.log(high)) if log else (low, high)
        value = float(self._rng.uniform(*ends))
        return math.exp(value) if log else value

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return round(self.suggest_float(name, low, high, step=None, log=log))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[self._rng.integers(len(choices))]


def _point(row: Any, keys: Sequence[str]) -> Params:
    """The parameters of a table's row; a key that did not vary there has none."""
    found = {key: row[f"params.{key}"] for key in keys if pd.notna(row[f"params.{key}"])}
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in found.items()}


@dataclass
class Simulated:
    """A sweep without trainings: its record, its epochs by time."""

    record: SweepRecord
    epochs: list[tuple[float, float]] = field(default_factory=list)  # time, best value so far
    time: float = 0.0


def simulate(
    space: SearchSpace,
    search: Any,
    scheduler: Any,
    curve: Any,
    *,
    trials: int,
    epochs: int,
    lanes: int,
    group: int,
    seconds: Any = lambda number: 1.0,
    metric_at: str = "best",
    base: Mapping[str, Any] | None = None,
) -> Simulated:
    """A deterministic sweep on ``curve(number, params)``: [E] values, the metric to be minimised.

    ``seconds(number)`` is what an epoch of a trial takes in its lane; ``base`` are the values of
    the training's own file.
    """
    record = SweepRecord("simulated", METRIC, "min", trials, metric_at=metric_at)
    rungs, factor = _rungs(scheduler, epochs)
    halving = Halving(rungs, factor, group, trials)
    suggestions = Suggestions(space, search, record, halving, fixed=base)
    found = Simulated(record)
    values: dict[int, Array] = {}
    waiting: dict[int, int] = {}
    running: list[tuple[float, int, int]] = []  # (end of the epoch, trial, epoch)
    new, now, best = 0, 0.0, math.inf

    def tell(kind: EventKind, number: int, **content: Any) -> None:
        event = {"event": kind, "trial_id": trial_name(number), "time": now, **content}
        record.apply(event)

    def end(number: int, status: str) -> None:
        tell(EventKind.END, number, status=status)
        halving.end(number)

    def fill_lanes() -> None:
        nonlocal new
        changed = True
        while changed:
            changed = False
            for number, epoch in sorted(waiting.items()):
                decision = halving.goes_on(number, epoch)
                if decision is False:
                    del waiting[number]
                    end(number, "stopped early")
                    changed = True
                elif decision and len(running) < lanes:
                    del waiting[number]
                    heapq.heappush(running, (now + seconds(number), number, epoch + 1))
                    changed = True
            if len(running) < lanes and new < trials and suggestions.ready(new):
                drawn = suggestions.draw(new)
                tell(EventKind.TRIAL, new, params=drawn.params, state=drawn.state)
                tell(EventKind.START, new, params=drawn.params)
                values[new] = curve(new, drawn.params)
                heapq.heappush(running, (now + seconds(new), new, 1))
                new += 1
                changed = True

    fill_lanes()
    while running:
        now, number, epoch = heapq.heappop(running)
        value = float(values[number][epoch - 1])
        best = min(best, value)
        tell(EventKind.EPOCH, number, metrics={"epoch": epoch, METRIC: value})
        path = f"tune/{trial_name(number)}/c"
        tell(EventKind.CHECKPOINT, number, path=path)
        trial = record.trials[trial_name(number)]
        before = record.value(trial) if trial.best_epoch else None
        if metric_at == "best" and (before is None or value < before):
            tell(EventKind.BEST, number, path=path, epoch=epoch)
        found.epochs.append((now, best))
        halving.report(number, epoch, value)
        if epoch == epochs:
            end(number, "finished")
        else:
            match halving.goes_on(number, epoch):
                case True:
                    heapq.heappush(running, (now + seconds(number), number, epoch + 1))
                case False:
                    end(number, "stopped early")
                case None:
                    waiting[number] = epoch
        fill_lanes()
    if len(record.trials) < trials or waiting:
        raise RuntimeError(f"stuck: {len(record.trials)} of {trials} trials, {waiting} wait")
    found.time = now
    return found


def _rungs(scheduler: Any, epochs: int) -> tuple[tuple[int, ...], int]:
    match scheduler:
        case ASHA():
            return scheduler.rungs(epochs), scheduler.reduction_factor
        case NoScheduler():
            return (), 2
    raise SystemExit("error: --scheduler: only `asha` and `none` decide by numbers alone")


def regret_of(found: Simulated, curves: Curves, best: float) -> float:
    """Of the trial that the sweep names, at the epoch by which it counts."""
    winner = found.record.ranked()[0]
    return float(curves.mean_of(winner.params)[found.record.epoch_of(winner) - 1]) - best


def run(
    curves: Curves, best: float, search: Any, scheduler: Any, trials: int, lanes: int, seed: int
) -> dict[str, float]:
    """One sweep of one seed: its regret, epochs and time."""
    rng = np.random.default_rng([seed, 1])
    speeds = rng.lognormal(0, 0.1, trials)
    seeded = search.model_copy(update={"seed": seed})

    def curve(number: int, params: Params) -> Array:
        return curves.noisy(params, np.random.default_rng([seed, 2, number]))

    found = simulate(
        curves.space,
        seeded,
        scheduler,
        curve,
        trials=trials,
        epochs=curves.epochs,
        lanes=lanes,
        group=load_sweep(None).group,
        seconds=lambda number: speeds[number],
        base=curves.base,
    )
    return {
        "regret": regret_of(found, curves, best),
        "epochs": float(len(found.epochs)),
        "time": found.time,
        "within": _epochs_to(found, curves, best * 1.01),
    }


def _epochs_to(found: Simulated, curves: Curves, target: float) -> float:
    """Epochs of all trials until one had a true mean of at most ``target``; inf if none had."""
    spent = 0
    for number in found.record.ordered():
        mean = curves.mean_of(number.params)[: number.epoch]
        if (mean <= target).any():
            return float(spent + int(np.argmax(mean <= target)) + 1)
        spent += number.epoch
    return math.inf


def interval(values: Sequence[float], base: Sequence[float] | None = None) -> tuple[float, ...]:
    """Median, or ratio of medians to ``base``, with the 95 % interval by resampling the seeds."""
    rng = np.random.default_rng(0)
    one, other = np.array(values), None if base is None else np.array(base)
    picks = rng.integers(len(one), size=(2000, len(one)))

    def figure(pick: Any) -> Any:
        top = np.median(one[pick], axis=-1)
        return top if other is None else top / np.median(other[pick], axis=-1)

    low, high = np.percentile(figure(picks), [2.5, 97.5])
    return float(figure(np.arange(len(one)))), float(low), float(high)


def parsed(kind: Any, text: str) -> Any:
    value = yaml.safe_load(text)
    mapping: Mapping[str, Any] = value if isinstance(value, dict) else {"type": value}
    return TypeAdapter(kind).validate_python(mapping)


def _line(row: Mapping[str, Any]) -> str:
    regret, low, high = row["regret"]
    share, least, most = row["of_random"]
    return (
        f"{row['scheduler']:32} {row['trials']:4} trials {row['search']:24} regret {regret:.4f} "
        f"({low:.4f} to {high:.4f})  of random {share:.2f} ({least:.2f} to {most:.2f})  epochs "
        f"{row['epochs']:.0f}, time {row['time']:.0f}, to 1 % {row['epochs_to_1_percent']:.0f}"
    )


def plot(path: Path, curves: Mapping[str, list[tuple[float, float]]], title: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(
        xlabel="epochs spent", ylabel="median regret (nats per token)", title=title, yscale="log"
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--space", type=Path, required=True)
    parser.add_argument("--search", action="append", required=True)
    parser.add_argument("--scheduler", action="append", default=[])
    parser.add_argument("--trials", type=int, nargs="+", default=[16])
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    sweep = load_sweep(None, [f"search_space={options.space}"])
    space = sweep.search_space
    curves = Curves(pd.read_csv(options.table), space, searched_values(sweep.train, space))
    best = curves.best()
    print(
        f"{options.table.name}: {len(curves.points)} points, {curves.epochs} epochs, best mean "
        f"{best:.4f}; error on points left out {curves.error:.1%}"
    )
    schedulers = options.scheduler or ["asha"]
    found: list[dict[str, Any]] = []
    for scheduler, trials in product(schedulers, options.trials):
        random: list[float] | None = None
        for search in ["random", *(s for s in options.search if s != "random")]:
            runs = [
                run(
                    curves,
                    best,
                    parsed(Search, search),
                    parsed(Scheduler, scheduler),
                    trials,
                    options.lanes,
                    seed,
                )
                for seed in range(options.seeds)
            ]
            regrets = [r["regret"] for r in runs]
            random = random or regrets
            row = {
                "search": search,
                "scheduler": scheduler,
                "trials": trials,
                "regret": interval(regrets),
                "of_random": interval(regrets, random),
                "epochs": float(np.mean([r["epochs"] for r in runs])),
                "time": float(np.mean([r["time"] for r in runs])),
                "epochs_to_1_percent": float(np.median([r["within"] for r in runs])),
            }
            found.append(row)
            print(_line(row), flush=True)
    if options.json:
        write_json(options.json, {"best": best, "error": curves.error, "found": found})
    if options.plot:
        lines = {
            f"{search}, {scheduler}": [
                (r["epochs"], max(r["regret"][0], 1e-5))
                for r in found
                if r["search"] == search and r["scheduler"] == scheduler
            ]
            for search, scheduler in dict.fromkeys((r["search"], r["scheduler"]) for r in found)
        }
        plot(options.plot, lines, options.table.name)


if __name__ == "__main__":
    main()
