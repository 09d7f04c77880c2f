"""The Hugging Face policy engine against transformers itself, distributions and counted tokens."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare

from orchestrator.engines.huggingface.draws import distribution
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.randomness import stream_key, uniforms
from orchestrator.search.engines import Ids, SampleRequest, TopRequest
from orchestrator.tasks.helpdesk import agents

MOST = 24  # new tokens
DRAWS = 4_000  # next tokens of a chi-square test
SIGNIFICANT = 1e-4  # the keys are fixed: a p-value under this is a fault, not bad luck


@pytest.fixture(scope="module")
def engine(word_policy: str) -> HuggingFacePolicy:
    """In float64, so that what a batch adds to rounding cannot turn a draw.

    With SDPA: eager attention's float32 softmax has no number for a padding row's float64 mask.
    """
    engine = HuggingFacePolicy(word_policy)
    engine.model.double()
    return engine


@pytest.fixture
def fresh(word_policy: str) -> HuggingFacePolicy:
    """One that has read nothing yet."""
    return HuggingFacePolicy(word_policy)


@pytest.fixture(scope="module")
def prompts(engine: HuggingFacePolicy) -> list[Ids]:
    return [engine.chat.prompt_ids(prompt.messages) for prompt in agents.prompts(6, seed=5)]


def keys(name: str, count: int) -> tuple[int, ...]:
    return tuple(stream_key(name, i) for i in range(count))


def logits_of(engine: HuggingFacePolicy, text: Ids) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = engine.model(input_ids=torch.tensor([text])).logits
    return logits[0, -1].double()


def test_a_sample_depends_on_its_stream_and_not_on_its_batch(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    prefix = engine.chat.response_ids("hello . first")
    requests = [
        SampleRequest(prompts[0], (), keys("a", 5), MOST),
        SampleRequest(prompts[1], prefix, keys("b", 3), MOST),
        SampleRequest(prompts[0], (), keys("c", 2), 5),
        SampleRequest(prompts[2], (), (1,), MOST, greedy=True),
        SampleRequest(prompts[3], (), keys("d", 4), MOST, entropy_stop=2.0),
    ]
    together = engine.sample(requests)
    assert len({c.token_ids for c in together[0].continuations}) == 5, "streams differ"
    backwards = engine.sample(requests[::-1])[::-1]
    for request, batched, reversed_ in zip(requests, together, backwards, strict=True):
        alone = engine.sample([request])[0]
        for other in (batched, reversed_):
            assert [c.token_ids for c in other.continuations] == [
                c.token_ids for c in alone.continuations
            ]
            assert [c.stop for c in other.continuations] == [c.stop for c in alone.continuations]
        for key, expected in zip(request.keys, alone.continuations, strict=True):
            single = SampleRequest(
                request.prompt_ids, request.prefix_ids, (key,), request.max_new_tokens,
                request.greedy, request.entropy_stop,
            )  # fmt: skip
            assert engine.sample([single])[0].continuations[0].token_ids == expected.token_ids


def test_the_same_key_gives_the_same_text_twice_in_one_request(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    answer = engine.sample([SampleRequest(prompts[0], (), (9, 9, 10), MOST)])[0].continuations
    assert answer[0].token_ids == answer[1].token_ids != answer[2].token_ids


def test_greedy_equals_the_greedy_search_of_transformers(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    answers = engine.sample([SampleRequest(p, (), (0,), MOST, greedy=True) for p in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        out = engine.model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
            do_sample=False, max_new_tokens=MOST, eos_token_id=list(engine.chat.end_ids),
        )[0, len(prompt) :].tolist()  # fmt: skip
        expected = [token for token in out if token not in engine.chat.end_ids]
        assert list(answer.continuations[0].token_ids) == expected


def test_a_continuation_equals_a_slow_oracle_token_by_token(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    """One forward a token without cache, the inverse of the cumulative distribution by hand."""
    for key in keys("oracle", 4):
        request = SampleRequest(prompts[0], (), (key,), MOST, entropies=True)
        found = engine.sample([request])[0].continuations[0]
        tokens: list[int] = []
        entropies: list[float] = []
        stop = "length"
        for draw in uniforms(key, MOST):
            probabilities = torch.softmax(logits_of(engine, prompts[0] + tuple(tokens)), -1)
            entropies.append(float(-(probabilities * probabilities.log()).sum()))
            total, token = 0.0, -1
            while total <= draw and token < len(probabilities) - 1:
                token += 1
                total += float(probabilities[token])
            if token in engine.chat.end_ids:
                stop = "end"
                break
            tokens.append(token)
        assert list(found.token_ids) == tokens
        assert found.stop == stop
        assert found.entropies == pytest.approx(entropies, rel=1e-4)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9)])
def test_the_next_token_follows_the_distribution_after_temperature_and_top_p(
    word_policy: str, prompts: list[Ids], temperature: float, top_p: float
) -> None:
    engine = HuggingFacePolicy(word_policy, temperature, top_p)
    request = SampleRequest(prompts[0], (), keys("chi", DRAWS), 1)
    answer = engine.sample([request])[0].continuations
    end = engine.chat.end_ids[0]
    counts = Counter(c.token_ids[0] if c.token_ids else end for c in answer)

    weights = torch.softmax(logits_of(engine, prompts[0]) / temperature, -1).tolist()
    nucleus, held = [], 0.0
    for token in sorted(range(len(weights)), key=lambda token: -weights[token]):
        if held >= top_p:
            break
        nucleus.append(token)
        held += weights[token]
    assert set(counts) <= set(nucleus)
    expected = {token: DRAWS * weights[token] / held for token in nucleus}
    common = [token for token in nucleus if expected[token] >= 5]
    assert len(common) >= 3
    observed = [counts[token] for token in common]
    wanted = [expected[token] for token in common]
    if len(common) < len(nucleus):
        observed.append(DRAWS - sum(observed))
        wanted.append(DRAWS - sum(wanted))
    assert chisquare(observed, wanted).pvalue > SIGNIFICANT


def test_with_an_entropy_stop_a_continuation_ends_before_the_first_uncertain_token(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    streams = keys("entropy", 12)
    whole = SampleRequest(prompts[0], (), streams, MOST, entropies=True)
    free = engine.sample([whole])[0].continuations
    every = sorted(entropy for c in free for entropy in c.entropies)
    # In the middle of a gap, which no rounding crosses when fewer streams share a batch.
    middle = range(len(every) // 2, len(every) * 5 // 6)
    wide = max(middle, key=lambda i: every[i + 1] - every[i])
    threshold = (every[wide] + every[wide + 1]) / 2
    assert every[wide + 1] - every[wide] > 1e-3
    request = SampleRequest(prompts[0], (), streams, MOST, entropy_stop=threshold)
    stopped = engine.sample([request])[0].continuations
    assert {c.stop for c in stopped} >= {"entropy"}
    for own, part in zip(free, stopped, strict=True):
        cut = next((i for i, e in enumerate(own.entropies) if i and e >= threshold), None)
        if cut is None:
            assert (part.token_ids, part.stop) == (own.token_ids, own.stop)
            assert part.entropies == pytest.approx(own.entropies, abs=1e-5)
        else:
            assert part.token_ids == own.token_ids[:cut] and part.stop == "entropy"
            assert part.entropies == pytest.approx(own.entropies[:cut], abs=1e-5)
    longest = max(len(c.token_ids) for c in stopped)
    assert 1 <= min(len(c.token_ids) for c in stopped if c.stop == "entropy") <= longest


def test_with_stops_a_continuation_ends_behind_the_token_that_completes_one(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    streams = keys("stops", 12)
    free = engine.sample([SampleRequest(prompts[0], (), streams, MOST)])[0].continuations
    texts = [engine.chat.text(c.token_ids) for c in free]
    words = [word for text in texts for word in text.split()]
    common = max(sorted(set(words)), key=words.count)
    request = SampleRequest(prompts[0], (), streams, MOST, stops=(common, "never"), texts=True)
    answer = engine.sample([request])[0]
    assert {c.stop for c in answer.continuations} >= {"stop"}
    for whole, part in zip(free, answer.continuations, strict=True):
        shorter = [whole.token_ids[:t] for t in range(1, len(whole.token_ids) + 1)]
        cut = next((ids for ids in shorter if common in engine.chat.text(ids)), None)
        assert (part.token_ids, part.stop) == (
            (whole.token_ids, whole.stop) if cut is None else (cut, "stop")
        )
        assert part.text == engine.chat.text(part.token_ids) and whole.text is None
    longer = replace(request, prefix_ids=answer.continuations[0].token_ids, stops=(common,))
    (again,) = engine.sample([longer])
    assert all(c.token_ids for c in again.continuations), (
        "the prefix holds the stop, and counts not"
    )
    with pytest.raises(ValueError, match="valid: one or more nonempty texts"):
        engine.sample([replace(request, stops=("",))])


def test_the_margin_is_the_least_distance_of_a_draw_to_a_border(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    stream = keys("margin", 3)
    found = engine.sample([SampleRequest(prompts[0], (), stream, 6)])[0].continuations
    for key, one in zip(stream, found, strict=True):
        distances = []
        drawn = (*one.token_ids, engine.chat.end_ids[0])[: len(one.token_ids) + one.finished]
        for place, token in enumerate(drawn):
            logits = logits_of(engine, prompts[0] + one.token_ids[:place])
            borders = [0.0, *torch.softmax(logits, -1).cumsum(0).tolist()]
            draw = uniforms(key, 6)[place]
            distances.append(min(draw - borders[token], borders[token + 1] - draw))
        assert one.margin == pytest.approx(min(distances), abs=1e-6)
    (greedy,) = engine.sample([SampleRequest(prompts[0], (), (0,), 4, greedy=True)])
    (one,) = greedy.continuations
    gaps = []
    for place in range(len(one.token_ids) + one.finished):
        largest = logits_of(engine, prompts[0] + one.token_ids[:place]).topk(2).values
        gaps.append(float(largest[0] - largest[1]))
    assert one.margin == pytest.approx(min(gaps), abs=1e-5)


def test_a_margin_knows_how_near_an_entropy_was_to_its_stop(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    whole = SampleRequest(prompts[0], (), keys("near", 1), MOST, entropies=True)
    (free,) = engine.sample([whole])[0].continuations
    stop = max(free.entropies[1:]) + 1e-7
    near = SampleRequest(prompts[0], (), keys("near", 1), MOST, entropy_stop=stop)
    (one,) = engine.sample([near])[0].continuations
    assert one.token_ids == free.token_ids and 0 < one.margin < 1e-6


def test_stops_say_end_or_length_and_the_end_token_is_left_out(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    answers = engine.sample(
        [SampleRequest(p, (), keys("stop", 30), 8, entropies=True) for p in prompts]
    )
    found = [c for answer in answers for c in answer.continuations]
    assert {c.stop for c in found} == {"end", "length"}
    for c in found:
        assert not set(c.token_ids) & set(engine.chat.end_ids)
        if c.stop == "length":
            assert len(c.token_ids) == len(c.entropies) == 8
        else:
            assert len(c.entropies) == len(c.token_ids) + 1 <= 8


def test_top_gives_the_sorted_logits_with_none_for_the_end_token(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    prefix = engine.chat.response_ids("hello .")
    whole = len(engine.chat.tokenizer)
    requests = [TopRequest(prompts[0], (), 7), TopRequest(prompts[1], prefix, whole + 50)]
    for request, found in zip(requests, engine.top_next_tokens(requests), strict=True):
        text = request.prompt_ids + request.prefix_ids
        logits = logits_of(engine, text).tolist()
        order = sorted(range(len(logits)), key=lambda token: -logits[token])[: request.count]
        expected = tuple(None if token in engine.chat.end_ids else token for token in order)
        assert found.token_ids == expected
        assert found.logits == pytest.approx([logits[token] for token in order], abs=1e-5)
        assert found.tokens_computed <= len(text), "what was read before is not read again"
        assert len(found.token_ids) == min(request.count, whole)
        margin = logits[order[-1]] - max(
            set(logits) - {logits[t] for t in order}, default=-math.inf
        )
        assert found.margin == pytest.approx(margin, abs=1e-5)
    assert None in engine.top_next_tokens(requests)[1].token_ids


def test_tokens_sampled_and_computed_are_those_counted_by_hand(
    fresh: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    """Computed: each different prefix once, then every token that was put through the model."""
    requests = [
        SampleRequest(prompts[0], (), keys("count", 60), 8),
        SampleRequest(prompts[0], (), keys("again", 2), 8),  # the same prefix: paid for above
        SampleRequest(prompts[1], (5, 6), keys("stop", 6), 8, entropy_stop=3.0),
        SampleRequest(prompts[2], (), keys("at", 20), 8, stops=("a", "e")),
    ]
    answers = fresh.sample(requests)
    prefills = [len(prompts[0]), 0, len(prompts[1]) + 2, len(prompts[2])]
    stops = set()
    for answer, prefill in zip(answers, prefills, strict=True):
        sampled = computed = 0
        for c in answer.continuations:
            stops.add(c.stop)
            sampled += len(c.token_ids) + (c.stop == "end")
            # Only a token at the length limit or a stop is not put through the model any more.
            computed += len(c.token_ids) - (c.stop in ("length", "stop"))
        assert answer.tokens_sampled == sampled
        assert answer.tokens_computed == prefill + computed
    assert stops == {"end", "length", "entropy", "stop"}


def test_more_rows_than_a_batch_holds_give_the_same_samples(
    engine: HuggingFacePolicy, prompts: list[Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [SampleRequest(p, (), keys(f"rows{i}", 3), 6) for i, p in enumerate(prompts)]
    whole = engine.sample(requests)
    monkeypatch.setattr("orchestrator.engines.huggingface.policy.ROWS_PER_BATCH", 4)
    assert [[c.token_ids for c in a.continuations] for a in engine.sample(requests)] == [
        [c.token_ids for c in a.continuations] for a in whole
    ]
    tops = [TopRequest(p, (), 3) for p in prompts]
    assert [t.token_ids for t in engine.top_next_tokens(tops)] == [
        engine.top_next_tokens([t])[0].token_ids for t in tops
    ]


def test_a_prompt_whose_samples_fill_several_batches_is_paid_for_once(
    fresh: HuggingFacePolicy, prompts: list[Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.engines.huggingface.policy.ROWS_PER_BATCH", 4)
    requests = [SampleRequest(p, (), keys(f"paid{i}", 10), 1) for i, p in enumerate(prompts[:2])]
    requests.append(SampleRequest(prompts[2], (), keys("paid2", 10), 2))
    *singles, pairs = fresh.sample(requests)
    assert [one.tokens_computed for one in singles] == [len(p) for p in prompts[:2]]
    assert pairs.tokens_computed == len(prompts[2]) + sum(
        len(c.token_ids) - (c.stop == "length") for c in pairs.continuations
    )


def test_entropies_are_in_nats_and_below_the_logarithm_of_the_vocabulary(
    engine: HuggingFacePolicy, prompts: list[Ids]
) -> None:
    (answer,) = engine.sample(
        [SampleRequest(prompts[0], (), keys("nats", 4), MOST, entropies=True)]
    )
    entropies = [e for c in answer.continuations for e in c.entropies]
    assert all(0 <= e <= math.log(len(engine.chat.tokenizer)) for e in entropies)


def test_a_cut_by_top_p_tells_how_near_it_is() -> None:
    """0.5, 0.3, 0.2: 0.7 cuts behind the second, before which 0.5 stand and behind which 0.8.

    In the second row the third and the fourth nearly are each other's place.
    """
    rows = [[0.2, 0.5, 0.3, 0.0], [0.5, 0.24, 0.24, 0.02]]
    found, cut = distribution(torch.tensor(rows, dtype=torch.float64).log(), 1.0, 0.7)
    expected = [[0, 0.625, 0.375, 0], [0.5 / 0.74, 0.24 / 0.74, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert cut is not None and cut.tolist() == pytest.approx([0.1, 0.0])
    logits = torch.zeros(1, 3)
    assert distribution(logits, 1.0, 1.0)[1] is None
