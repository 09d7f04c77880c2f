"""A sweep's summary with made-up numbers that all differ, for the tests of the report."""

from typing import Any

from orchestrator.report.result_tables import SETS

SCORERS = ("orm", "orm_continued", "prm_sst", "prm_tlt_matched")
SEARCHES = ("cbs", "bon", "args", "cards", "tbs")
JUDGED = ("AR_RM-HP", "AR_SC-HP", "prefix_accuracy")


class Numbers:
    """Intervals that are all different, so that each is looked for by its own text."""

    def __init__(self) -> None:
        self.made = 0

    def interval(self, scale: float = 1.0) -> dict[str, Any]:
        self.made += 1
        value = scale * (0.1 + (self.made * 0.6180339887) % 0.8)
        return {"value": value, "low": value - 0.04, "high": value + 0.05, "count": 300}

    def test(self, difference: float = 0.02) -> dict[str, Any]:
        self.made += 1
        middle = difference + (self.made % 7) * 0.001
        low, high = middle - 0.03, middle + 0.035
        return {"difference": middle, "low": low, "high": high, "p_value": 0.04, "count": 300}


def cell_entry(numbers: Numbers, method: str, scorer: str | None) -> dict[str, Any]:
    return {
        "task": "helpdesk", "method": method, "scorer": scorer, "seed": 0, "prompts": 300,
        "parameters": {"n": 16} if method == "bon" else {},
        "metrics": {
            "reward": numbers.interval(-12) if scorer else None,
            "reward_std": 1.37 if scorer else None,
            "orm_reward": numbers.interval(3), "rubric": numbers.interval(4),
            "resolved": numbers.interval(), "win_tie": numbers.interval(),
            "diversity": numbers.interval(), "length": numbers.interval(40),
            "finished": numbers.interval(), "accuracy": None,
        },
        "counts": {"wrong_verbs": numbers.interval(), "repeated_steps": numbers.interval()},
        "cost": {
            "policy_tokens_sampled": 600.0, "policy_tokens_computed": 300.0 * numbers.made,
            "reward_tokens_computed": 1_000.0, "policy_calls": 4.0, "reward_calls": 3.5,
            "seconds": 0.123, "policy_flops": 6e8 * numbers.made, "reward_flops": 2e9,
            "flops": 6e8 * numbers.made + 2e9,
        },
    }  # fmt: skip


def _curve(numbers: Numbers, scorer: str) -> dict[str, Any]:
    """The BoN curve of a scorer at n = 1, 2, 4."""
    metrics = ("reward", "resolved", "accuracy", "rubric", "win_tie", "orm_reward")
    points = [
        {"n": n, "metrics": {name: numbers.interval() for name in metrics} | {"accuracy": None},
         "cost": {"flops": 1e9 * n, "seconds": 0.01 * n}}
        for n in (1, 2, 4)
    ]  # fmt: skip
    return {"scorer": scorer, "points": points}


def _at_budget(numbers: Numbers, method: str, scorer: str, **found: Any) -> dict[str, Any]:
    metrics = ("resolved", "rubric", "win_tie", "orm_reward")
    return {
        "method": method, "scorer": scorer, "budget": "flops", "n": 3, "most": 4, "share": 0.97,
        "tests": {metric: numbers.test() for metric in metrics}, **found,
    }  # fmt: skip


def rate_entry(numbers: Numbers, measure: str, scorer: str | None, position: str) -> dict[str, Any]:
    curves: dict[str, Any] = {over: [numbers.interval() for _ in range(3)] for over in SETS}
    curves["distinct"][0] = None  # no distinct pair at the shortest length
    means: dict[str, Any] = {f"{over}_mean": numbers.interval() for over in SETS}
    over = "decided" if measure in JUDGED else "distinct"
    if over == "distinct":
        curves["decided"], means["decided_mean"] = [None] * 3, None
    return {
        "scorer": scorer, "position": position, "measure": measure, "grid": [5, 10, 40],
        "pair_set": over, **curves, **means,
    }  # fmt: skip


def full_summary() -> dict[str, Any]:
    """A summary with an entry of every kind."""
    numbers = Numbers()
    measures = ("AR_RM-SC", "AR_RM-HP", "reward_gap", "prefix_accuracy")
    return {
        "task": "helpdesk", "name": "helpdesk", "seed": 0, "sweep_key": "0123456789abcdef",
        "output_dir": "runs/helpdesk", "position": "closed", "versions": {"ray": "2.60.0"},
        "seconds": 812.3, "training_seeds": 1, "config_yaml": "decoding:\n  temperature: 1.0\n",
        "premise": {
            "verdict": "holds", "reference": numbers.interval(), "orm": numbers.interval(),
            "difference": numbers.test(0.1), "text": "The reference orders prefixes better.",
        },
        "stages": [
            {"stage": "policy", "key": "feedfacecafebeef", "seconds": 33.1,
             "figures": {"steps": 350, "loss": 0.5123}},
        ],
        "models": [
            {"name": name, "objective": "bradley_terry", "steps": 125, "rows": 4000,
             "partial_pairs": 4321, "seconds": 17.2, "final_loss": 0.5217,
             "pair_accuracy": numbers.interval(), "loss": [[1, 0.7], [100, 0.6], [125, 0.52]]}
            for name in SCORERS
        ],
        "weights": [
            {"truncation": "sst", "partial_pairs": 18_000, "kept": 14_880, "capped": 120,
             "dropped": {"same_prefix": 1_200, "reference_disagrees": 1_920},
             "histogram": {"edges": [1.4, 2.0, 5.0, 100.0], "counts": [9_000, 5_000, 880]}},
        ],
        "cells": [cell_entry(numbers, m, s) for m in SEARCHES for s in SCORERS]
        + [cell_entry(numbers, "greedy", None), cell_entry(numbers, "base", None)],
        "comparisons": [
            {"method": method, "scorer": scorer, "baseline": baseline, "metric": metric,
             "test": numbers.test(gain)}
            for metric in ("resolved", "rubric") for method in SEARCHES for scorer in SCORERS
            for baseline, gain in (("orm", -0.1), ("orm_continued", 0.0), ("base", 0.3))
        ],
        "count_comparisons": [
            {"method": "cbs", "scorer": "prm_sst", "baseline": "orm", "metric": "wrong_verbs",
             "test": numbers.test(-0.2)},
        ],
        "bon_curves": [_curve(numbers, scorer) for scorer in SCORERS],
        "equal_budget": [
            _at_budget(numbers, "cards", "orm", n=1, share=1.234),
            _at_budget(numbers, "args", "prm_sst"),
            _at_budget(numbers, "args", "prm_sst", budget="seconds", n=4, share=0.421),
        ],
        "agreement": [
            rate_entry(numbers, measure, scorer, position)
            for measure in measures for scorer in SCORERS for position in ("closed", "open")
        ]
        + [rate_entry(numbers, "AR_SC-HP", None, "closed")],
        "agreement_comparisons": [
            {"scorer": "prm_sst", "baseline": baseline, "position": "closed",
             "measure": "AR_RM-SC", "pair_set": "distinct", "test": numbers.test()}
            for baseline in ("orm", "orm_continued")
        ],
        "rejects": {"count": 3, "reasons": {"empty response": 2, "not UTF-8": 1}},
        "notes": ["One training seed does not tell."],
    }  # fmt: skip
