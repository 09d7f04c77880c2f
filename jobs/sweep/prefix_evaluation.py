"""Agreement rates, reward gap and prefix accuracy of every scorer, closed and open (appendix B).

Also the premise of section 4.2: whether the reference orders prefixes better than the ORM.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jobs.sweep.steps.agreement import POSITIONS, test_pairs
from jobs.sweep.sweep import Sweep
from orchestrator.conversations.chat import Chat
from orchestrator.evaluation.agreement import (
    Curve,
    Over,
    PrefixRates,
    ar_rm_hp,
    ar_rm_sc,
    ar_sc_hp,
    compare_rates,
    reward_gap,
)
from orchestrator.evaluation.prefix_accuracy import PrefixAccuracy, both_reach, prefix_accuracy
from orchestrator.evaluation.statistics import (
    Interval,
    PairedTest,
    mean_interval,
    paired_test,
)
from orchestrator.judges.judge import Judge, Judged, Verdict
from orchestrator.judges.task_grade import TaskGrade
from orchestrator.records import PreferencePair
from orchestrator.scorers.registry import chat_of
from orchestrator.search.engines import Ids
from orchestrator.stages.progress import Meter

BASELINES = ("orm", "orm_continued")
MEASURES = ("prefix_accuracy", "AR_RM-SC", "AR_RM-HP", "AR_SC-HP", "reward_gap")  # shown so
SETS: tuple[Over, ...] = ("strict", "distinct", "decided")
# By the sign of the reference's difference to the ORM: "" where the interval includes zero.
PREMISE_VERDICTS = {"+": "holds", "-": "does not hold", "": "not shown"}


@dataclass
class Grid:
    """The held-out pairs on the grid of t: (N, G) arrays; ``h`` and faults only with a rubric.

    t counts tokens of one tokenizer: a scorer with another one has another grid.
    """

    ids: list[tuple[Ids, Ids]]
    grid: list[int]
    groups: list[str]
    distinct: np.ndarray
    reached: np.ndarray
    h: tuple[np.ndarray, np.ndarray] | None
    faults: tuple[np.ndarray, np.ndarray] | None


def agreement(sweep: Sweep, scorers: list[str], meter: Meter) -> dict[str, Any]:
    """The summary's `agreement`, `agreement_comparisons`, `premise` and `pair_accuracy`."""
    pairs = test_pairs(sweep)
    grid = _grid(sweep, pairs, sweep.chat("policy"), [])
    grids: dict[str, Grid] = {}
    rows: list[dict[str, Any]] = []
    rates: dict[tuple[str, str, str], PrefixRates] = {}
    accuracies: dict[tuple[str, str], PrefixAccuracy] = {}
    whole: dict[str, Any] = {}
    if grid.h is not None:
        rows.append(
            _row(
                None,
                "closed",
                "AR_SC-HP",
                grid,
                ar_sc_hp(*grid.h, grid.distinct, *_key(sweep), **_options(sweep, grid)),
            )
        )
    for scorer in scorers:
        chat = chat_of(sweep.scorer(scorer))
        grid = grids[scorer] = _grid(sweep, pairs, chat, [grid, *grids.values()])
        scores = np.load(sweep.file(f"agreement/{scorer}", "scores.npz"))
        for position in POSITIONS:
            sides = [scores[f"{position}_{side}"] for side in ("chosen", "rejected")]
            prefixes = (sides[0][:, :-1], sides[1][:, :-1])
            for measure, rate in _measures(sweep, grid, prefixes).items():
                rates[scorer, position, measure] = rate
                rows.append(_row(scorer, position, measure, grid, rate))
            if grid.faults is not None:
                found = prefix_accuracy(
                    *prefixes, *grid.faults, grid.reached, *_key(sweep),
                    **_options(sweep, grid), fault_in="rejected",
                )  # fmt: skip
                accuracies[scorer, position] = found
                rows.append(_accuracy_row(sweep, scorer, position, grid, found))
            if position == sweep.config.scoring.position:
                right = (sides[0][:, -1] > sides[1][:, -1]).astype(float)
                whole[scorer] = asdict(mean_interval(right, *_key(sweep), **_options(sweep, grid)))
        meter.advance()
    return {
        "agreement": sorted(rows, key=lambda row: MEASURES.index(row["measure"])),
        "agreement_comparisons": _compare(sweep, grids, rates, accuracies),
        "premise": _premise(sweep, grids, accuracies),
        "pair_accuracy": whole,
    }


def _key(sweep: Sweep) -> tuple[int, str]:
    return sweep.config.seed, "agreement"


def _options(sweep: Sweep, grid: Grid) -> dict[str, Any]:
    return {"groups": grid.groups, "samples": sweep.config.evaluation.bootstrap_samples}


def _grid(sweep: Sweep, pairs: list[PreferencePair], chat: Chat, known: list[Grid]) -> Grid:
    """The grid in the tokens of ``chat``; one of ``known`` where these are the same."""
    grid = list(sweep.config.evaluation.agreement_grid)
    ids = [chat.pair(p.prompt.messages, p.chosen, p.rejected)[1:] for p in pairs]
    same = next((other for other in known if other.ids == ids), None)
    if same is not None:
        return same
    distinct = np.array([[c[:t] != r[:t] for t in grid] for c, r in ids])
    reached = both_reach([len(c) for c, _ in ids], [len(r) for _, r in ids], grid)
    groups = [pair.prompt.prompt_id for pair in pairs]
    judge = prefix_judge(sweep)
    if judge is None:
        return Grid(ids, grid, groups, distinct, reached, None, None)
    texts = [
        Judged(pair.prompt, chat.text(tokens[:t]), finished=False)
        for side in (0, 1)
        for pair, tokens in zip(pairs, (both[side] for both in ids), strict=True)
        for t in grid
    ]
    verdicts = judge.verdicts(sweep.config.data, texts)
    values, faults = _arrays(verdicts, (2, len(pairs), len(grid)))
    return Grid(
        ids, grid, groups, distinct, reached, (values[0], values[1]),
        None if faults is None else (faults[0], faults[1]),
    )  # fmt: skip


def prefix_judge(sweep: Sweep) -> Judge | None:
    """Return the first judge of the sweep that judges prefixes, the task's grade before others."""
    task = sweep.config.data
    judges = [TaskGrade(), *sweep.config.evaluation.judges]
    return next((judge for judge in judges if judge.judges_prefixes(task)), None)


def _arrays(
    verdicts: list[Verdict], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values float64 and whether there are faults, of a shape; None if they are not counted."""
    values = np.array([verdict.value for verdict in verdicts], float).reshape(shape)
    if any(verdict.faults is None for verdict in verdicts):
        return values, None
    return values, np.array([bool(verdict.faults) for verdict in verdicts]).reshape(shape)


def _measures(
    sweep: Sweep, grid: Grid, scores: tuple[np.ndarray, np.ndarray]
) -> dict[str, PrefixRates]:
    key, options = _key(sweep), _options(sweep, grid)
    found = {
        "AR_RM-SC": ar_rm_sc(*scores, grid.distinct, *key, **options),
        "reward_gap": reward_gap(*scores, grid.distinct, *key, **options),
    }
    if grid.h is not None:
        found["AR_RM-HP"] = ar_rm_hp(*scores, *grid.h, grid.distinct, *key, **options)
    return found


def _row(
    scorer: str | None, position: str, measure: str, grid: Grid, rate: PrefixRates
) -> dict[str, Any]:
    curves = {over: getattr(rate, over) or _unmeasured(grid) for over in SETS}
    return {
        "scorer": scorer, "position": position, "measure": measure, "grid": grid.grid,
        "over": rate.conclusive,
        **{over: [_plain(interval) for interval in curve.per_t] for over, curve in curves.items()},
        **{f"{over}_mean": _plain(curve.mean) for over, curve in curves.items()},
    }  # fmt: skip


def _unmeasured(grid: Grid) -> Curve:
    return Curve((None,) * len(grid.grid), None)


def _accuracy_row(
    sweep: Sweep, scorer: str, position: str, grid: Grid, found: PrefixAccuracy
) -> dict[str, Any]:
    per_t: list[Any] = []
    for column in range(len(grid.grid)):
        here = found.cases[:, 1] == column
        per_t.append(
            asdict(
                mean_interval(
                    found.correct[here],
                    *_key(sweep),
                    groups=found.groups[here],
                    samples=sweep.config.evaluation.bootstrap_samples,
                )
            )
            if here.any()
            else None
        )
    # Its cases are pairs of which one prefix holds a fault: distinct, and decided by the rubric.
    nothing = [None] * len(grid.grid)
    return {
        "scorer": scorer, "position": position, "measure": "prefix_accuracy", "grid": grid.grid,
        "over": "decided", "strict": nothing, "distinct": nothing, "decided": per_t,
        "strict_mean": None, "distinct_mean": None, "decided_mean": _plain(found.rate),
    }  # fmt: skip


def _compare(
    sweep: Sweep,
    grids: dict[str, Grid],
    rates: dict[tuple[str, str, str], PrefixRates],
    accuracies: dict[tuple[str, str], PrefixAccuracy],
) -> list[dict[str, Any]]:
    """Each scorer against ORM and ORM trained on, at both positions, over the same pairs."""
    found = []
    for baseline in BASELINES:
        for scorer in grids:
            if baseline not in grids or scorer in ("orm", baseline):
                continue
            if grids[scorer] is not grids[baseline]:
                continue  # other tokens, other prefixes: nothing to pair
            for position in POSITIONS:
                for measure in ("AR_RM-SC", "AR_RM-HP"):
                    if (scorer, position, measure) in rates:
                        rate = rates[scorer, position, measure]
                        test = compare_rates(
                            rate,
                            rates[baseline, position, measure],
                            *_key(sweep),
                            samples=sweep.config.evaluation.bootstrap_samples,
                        )
                        found += _comparison(
                            scorer, baseline, position, measure, rate.conclusive, test
                        )
                if accuracies.get((scorer, position)) is not None:
                    test = _paired_accuracy(
                        sweep, accuracies[scorer, position], accuracies[baseline, position]
                    )
                    found += _comparison(
                        scorer, baseline, position, "prefix_accuracy", "decided", test
                    )
    return found


def _comparison(
    scorer: str, baseline: str, position: str, measure: str, over: Over, test: PairedTest | None
) -> list[dict[str, Any]]:
    """One entry, or none where no pair counts."""
    if test is None:
        return []
    return [
        {
            "scorer": scorer, "baseline": baseline, "position": position, "measure": measure,
            "over": over, "test": asdict(test),
        }
    ]  # fmt: skip


def _paired_accuracy(sweep: Sweep, one: PrefixAccuracy, other: PrefixAccuracy) -> PairedTest | None:
    if not len(one.correct):
        return None
    samples = sweep.config.evaluation.bootstrap_samples
    return paired_test(one.correct, other.correct, *_key(sweep), groups=one.groups, samples=samples)


def _premise(
    sweep: Sweep, grids: dict[str, Grid], accuracies: dict[tuple[str, str], PrefixAccuracy]
) -> dict[str, Any]:
    """Section 4.2 takes the reference for the better judge of prefixes: is it, here?

    The paired difference decides: what interval and p-value do not both show is not shown.
    """
    position = sweep.config.scoring.position
    reference, orm = accuracies.get(("reference", position)), accuracies.get(("orm", position))
    other = grids.get("reference") is not grids.get("orm")
    if other or not (reference and orm and reference.rate and orm.rate):
        text = (
            "Without a reference of the run, a rubric of prefixes and one tokenizer for both, the"
            " premise of section 4.2 is not checked."
        )
        return {
            "verdict": "not tested", "reference": None, "orm": None, "difference": None,
            "text": text,
        }  # fmt: skip
    test = _paired_accuracy(sweep, reference, orm)
    assert test is not None  # both have a rate, so there are cases
    text = (
        "It takes the reference for a better judge of prefixes than the ORM; where it is not, the"
        " weights say little."
    )
    return {
        "verdict": PREMISE_VERDICTS[test.sign], "reference": _plain(reference.rate),
        "orm": _plain(orm.rate), "difference": asdict(test), "text": text,
    }  # fmt: skip


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)
