"""The benchmark's arithmetic by hand, and its cases on a model that takes no time."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from jobs.benchmarks import search_rates, smollm2
from jobs.benchmarks.names import PIPELINE
from jobs.benchmarks.pipeline import Round, pipeline_result
from jobs.benchmarks.prefixes import CASES, prefix_result
from jobs.benchmarks.search_cases import CASES as SEARCHES
from jobs.benchmarks.search_cases import ModelSetup
from jobs.benchmarks.setting import (
    SETTINGS,
    Setting,
    device_description,
    forward_flops,
    matmul_flops_per_second,
    random_model,
)
from jobs.benchmarks.smollm2_cases import SMOLLM2_CASES
from orchestrator.choices import Engine
from orchestrator.rewards.packed import Branch, PackedRow
from orchestrator.search.methods.beam import TokenBeamSearch

TINY = Setting(
    device="cpu", vocabulary=64, hidden=16, intermediate=24, layers=2, heads=4, key_value_heads=2,
    dtype="float32", separate_tokens=4096, packed_pairs=8, matmul_size=64,
)  # fmt: skip
FIELDS = {"name", "ours_s", "other_s", "ratio", "floor", "ceiling", "ours_peak_mib",
          "other_peak_mib", "flops"}  # fmt: skip


def test_the_arithmetic_of_a_forward_is_that_of_its_products_and_attention() -> None:
    # A prompt of 2 tokens, a response of 3, a branch of 2 tokens behind the first of these.
    row = PackedRow((1, 2), ((3, 4, 5),), (Branch(1, (6, 7)), Branch(2)))
    heads_of_four = 16 * 16 + 2 * (16 * 8) + 16 * 16  # queries, keys and values, output
    products = 2 * 2 * (heads_of_four + 3 * 16 * 24) * 7
    # Seen: 1 + 2 in the prompt, 3 + 4 + 5 in the response, 4 + 5 in the branch.
    attention = 2 * 2 * 2 * 16 * (3 + 12 + 9)
    assert forward_flops(TINY, [row, row]) == 2 * (products + attention)


def test_the_large_setting_has_the_shape_of_llama_3_2_1b() -> None:
    large = SETTINGS["cuda"]
    weights = sum(p.numel() for p in random_model(dataclasses.replace(TINY, layers=1)).parameters())
    tiny_layer = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16
    assert weights == 64 * 16 + tiny_layer + 16 + 16  # embeddings, a layer, last norm, head
    layer = 2048 * 2048 * 2 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048
    assert large.vocabulary * large.hidden + large.layers * layer + 2048 == 1_235_814_400
    assert large.heads == 32 and large.key_value_heads == 8 and large.dtype == "bfloat16"
    assert large.matmul_size == 8192


def test_a_matrix_product_has_a_rate_and_the_device_a_name() -> None:
    assert matmul_flops_per_second(TINY) > 1e6
    assert (
        device_description(TINY)
        == f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )


def test_the_fastest_engine_is_that_with_the_highest_median() -> None:
    rates = {"transformers": [9.0, 10.0, 10.0], "vllm": [5.0, 5.0, 20.0], "generate": [4.0] * 3}
    engines: list[Engine] = ["transformers", "vllm"]
    result = smollm2._summary(SMOLLM2_CASES["bon16"], engines, rates, [], "generate")
    assert (result["fastest"], result["ratio"], result["over_limit"]) == ("transformers", 2.5, None)


def test_the_rate_of_a_round_leaves_out_its_ends() -> None:
    # Two actors, each 10 rows a second; the first and the last two parts do not count.
    times = [5.0, 5.0, 6.0, 6.0, 7.0, 7.0, 8.0, 8.0, 30.0, 30.0]
    assert Round(2, [(t, 10) for t in times]).rate == pytest.approx(20.0)
    # One part more than a multiple: it does not count either.
    assert Round(2, [(t, 10) for t in [*times[:8], 8.5, 30.0, 30.0]]).rate == pytest.approx(20.0)
    with pytest.raises(ValueError, match="4 shards are too few"):
        _ = Round(2, [(t, 10) for t in times[:4]]).rate


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sst5_closed", "train_tlt_open"])
def test_a_case_runs_at_any_size(name: str) -> None:
    found = prefix_result(name, 1, TINY)
    assert set(found) == FIELDS and found["name"] == name
    times = float(str(found["ours_s"])), float(str(found["other_s"]))
    quotient = times[0] / times[1] if CASES[name].training else times[1] / times[0]
    assert found["ratio"] == pytest.approx(quotient)
    assert float(str(found["flops"])) > 0


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_pipeline_is_measured_at_any_size() -> None:
    setting = dataclasses.replace(TINY, vocabulary=100)
    found = pipeline_result(900, setting, Console(quiet=True))
    assert set(found) == FIELDS and found["name"] == PIPELINE
    assert float(str(found["ours_s"])) > 0 and float(str(found["ratio"])) > 0
    assert float(str(found["ours_peak_mib"])) < 50


def test_the_best_rates_are_those_of_the_best_engine_and_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes; past the best size it gets slower.

    The other engine decodes faster, and is too slow at scoring to be tried further.
    """
    tried: list[tuple[str, str, int]] = []

    def measured(name: str, best: int, other: float) -> Callable[..., float]:
        def rate(setup: ModelSetup, engine: str, rows: int, *shape: int) -> float:
            tried.append((name, engine, rows))
            return (10_000.0 - abs(rows - best)) * (1.0 if engine == "transformers" else other)

        return rate

    monkeypatch.setattr(search_rates, "_decoding", measured("decoding", 256, 1.5))
    monkeypatch.setattr(search_rates, "_scoring", measured("scoring", 64, 0.25))
    monkeypatch.setattr(search_rates, "engines", lambda setup, scores: ["transformers", "vLLM"])
    setup = ModelSetup("", "open", SETTINGS["cpu"], 2, 1)
    case = replace(SEARCHES["tbs8x8"], method=TokenBeamSearch(beams=2, candidates=8))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        rates = search_rates.BestRates([one, other], setup, case)  # type: ignore[list-item]
        decoding, scoring = rates.measure()
        searched = list(tried)
        assert rates.measure() == [decoding, scoring]
    assert (decoding.engine, decoding.batch_size, decoding.tokens_per_second) == (
        "vLLM",
        256,
        30_000.0,
    )
    assert (scoring.engine, scoring.batch_size, scoring.tokens_per_second) == (
        "transformers",
        64,
        20_000.0,
    )
    sizes = [64, 128, 256, 512]
    assert searched[::2] == [
        *(("decoding", engine, rows) for engine in ("transformers", "vLLM") for rows in sizes),
        *(("scoring", "transformers", rows) for rows in sizes[:2]),
        ("scoring", "vLLM", 64),
    ]
    assert tried[len(searched) :: 2] == [
        ("decoding", "vLLM", 256), ("scoring", "transformers", 64)
    ]  # fmt: skip
