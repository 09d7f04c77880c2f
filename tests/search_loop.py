"""Reward-guided search the straightforward way: one prompt at a time, with plain transformers.

The policy goes on with a key/value cache, the reward model scores all candidates of a step in one
batch without any. What other code of this field does, written down in full, as the oracle of every
method's text and the other side of `jobs/bench.py search`. Draws are keyed as the methods' are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.data.answers import answers_in
from orchestrator.randomness import uniforms
from orchestrator.search.engines import Ids
from orchestrator.search.method import SearchMethod
from orchestrator.search.methods.args import Args, StochasticArgs
from orchestrator.search.methods.beam import ChunkBeamSearch, StepBeamSearch
from orchestrator.search.methods.best_of_n import BestOfN
from orchestrator.search.methods.cards import Cards
from orchestrator.search.methods.dvts import DVTS
from orchestrator.search.methods.general import SENTENCE_ENDS, GeneralSearch
from orchestrator.search.methods.policy_alone import Base, Greedy
from orchestrator.search.methods.vote import Vote
from orchestrator.search.problem import Problem


@dataclass
class Grown:
    """A beginning of a response, whether it is finished, and its score."""

    ids: Ids = ()
    finished: bool = False
    score: float = -math.inf


@dataclass
class Loop:
    """Both models, in evaluation mode, on one device.

    ``ends`` are token ids that end a response; ``closing`` ids are put behind what is scored,
    ``finished_closing`` behind what the policy has ended.
    ``text`` writes the policy's ids, for stops and votes; ``own`` gives the reward model's ids of a
    prompt and a response, where its tokenizer is another one.
    """

    policy: PreTrainedModel
    reward: PreTrainedModel
    ends: Ids = ()
    closing: Ids = ()
    temperature: float = 1.0
    top_p: float = 1.0
    policy_tokens: int = 0
    chosen_tokens: int = 0  # drawn or chosen by the policy, ends too
    reward_tokens: int = 0
    text: Callable[[Ids], str] = str
    own: Callable[[Ids, Ids], Ids] = lambda prompt, response: prompt + response
    finished_closing: Ids = ()

    def answer(self, problem: Problem, method: SearchMethod[Any]) -> Ids:
        """The response of a search method."""
        most, name = problem.max_new_tokens, method.name
        match method:
            case Base() | Greedy():
                return self.plain(problem, greedy=isinstance(method, Greedy))
            case Vote():
                return self.vote(problem, method.n, method.needs_scorer, method.answers)
            case BestOfN():
                return self.best_of_n(problem, method.n)
            case StochasticArgs():
                return self.args(problem, method.weight, method.k, method.temperature)
            case Args():
                return self.args(problem, method.weight, method.k)
            case ChunkBeamSearch():
                return self.beams(problem, method.beams, method.candidates, method.chunk, name)
            case StepBeamSearch():
                stops = (method.delimiter,)
                return self.beams(problem, method.beams, method.candidates, most, name, stops)
            case DVTS():
                stops = (method.delimiter,)
                return self.beams(
                    problem, method.subtrees, method.candidates, most, name, stops, apart=True
                )
            case GeneralSearch():
                length = {"token": 1, "chunk": method.chunk}.get(method.granularity, most)
                ends = {"sentence": SENTENCE_ENDS, "step": (method.delimiter,)}
                stops = ends.get(method.granularity, ())
                return self.beams(problem, method.sequences, method.candidates, length, name, stops)
            case Cards():
                return self.cards(problem, method)
        raise NotImplementedError(f"no oracle of {name}")

    @torch.no_grad()
    def plain(self, problem: Problem, greedy: bool) -> Ids:
        """One response of the policy alone."""
        key, most = problem.key("base"), problem.max_new_tokens
        if not greedy:
            ((response, _),) = self.samples(problem.prompt_ids, [key], most)
            return response
        return self.args(problem, 0.0, 1)

    @torch.no_grad()
    def best_of_n(self, problem: Problem, n: int) -> Ids:
        """N responses, the best by reward."""
        drawn = self._whole(problem, n)
        scores = self.scores(problem, drawn)
        return drawn[scores.index(max(scores))].ids

    @torch.no_grad()
    def vote(self, problem: Problem, n: int, weighted: bool, answers: str) -> Ids:
        """N responses, one of the answer with the most votes, or with the most sigma(reward)."""
        drawn = self._whole(problem, n)
        scores = self.scores(problem, drawn) if weighted else [0.0] * len(drawn)
        found = answers_in(answers, [self.text(one.ids) for one in drawn])
        voters = [i for i, answer in enumerate(found) if answer is not None] or range(len(drawn))
        most, chosen = -1.0, 0
        for i in voters:  # the first of equals
            own = [j for j in voters if found[j] == found[i]]
            weight = sum(1 / (1 + math.exp(-scores[j])) for j in own)
            if weight > most + 1e-12:
                most, chosen = weight, max(own, key=lambda j: scores[j])
        return drawn[chosen].ids

    def _whole(self, problem: Problem, n: int) -> list[Grown]:
        """N samples, without those cut off at the length, unless all are."""
        keys = [problem.key("sample", i) for i in range(n)]
        drawn = self.samples(problem.prompt_ids, keys, problem.max_new_tokens)
        every = [Grown(y, end) for y, end in drawn]
        return [one for one in every if one.finished] or every

    @torch.no_grad()
    def args(self, problem: Problem, weight: float, k: int, temperature: float = 0.0) -> Ids:
        """The next token by logit + weight * reward, of the policy's top k; drawn, or the best."""
        response: Ids = ()
        cache = DynamicCache()
        new = problem.prompt_ids
        while len(response) < problem.max_new_tokens:
            logits = _wide(self._forward(torch.tensor([new]), cache)[0])
            values, ids = torch.sort(logits, descending=True, stable=True)
            tokens = ids[:k].tolist()
            ends = [t in self.ends for t in tokens]
            grown = [
                Grown(response + (() if end else (t,)), end)
                for t, end in zip(tokens, ends, strict=True)
            ]
            scores = self.scores(problem, grown)
            totals = [v + weight * s for v, s in zip(values[:k].tolist(), scores, strict=True)]
            token = tokens[totals.index(max(totals))]
            if temperature:
                order = sorted(
                    range(len(tokens)), key=lambda i: (tokens[i] in self.ends, tokens[i])
                )
                exact = torch.tensor([totals[i] for i in order], dtype=torch.float64)
                cumulative = torch.softmax(exact / temperature, -1).cumsum(-1)
                draw = uniforms(problem.key("args_stochastic", len(response)), 1)[0]
                place = torch.searchsorted(cumulative, draw * float(cumulative[-1]), right=True)
                token = tokens[order[int(place)]]
            if token in self.ends:
                break
            response, new = (*response, token), (token,)
            self.chosen_tokens += 1
        return response

    @torch.no_grad()
    def beams(
        self,
        problem: Problem,
        width: int,
        candidates: int,
        chunk: int,
        name: str,
        stops: Sequence[str] = (),
        apart: bool = False,
    ) -> Ids:
        """From each of some beams so many chunks, the best of all are kept; finished ones stay.

        A chunk ends with one of ``stops``, too. Beams that are ``apart`` do not compete: of each
        the best chunk is kept.
        """
        kept = [Grown() for _ in range(width)]
        step = 0
        while any(self._room(problem, one) for one in kept):
            pools: list[list[Grown]] = []
            for i, one in enumerate(kept):
                room = self._room(problem, one)
                if not room:
                    pools.append([one])
                    continue
                keys = [problem.key(name, step, i, c) for c in range(candidates)]
                text = problem.prompt_ids + one.ids
                drawn = self.samples(text, keys, min(chunk, room), stops=stops)
                pools.append([Grown(one.ids + y, end) for y, end in drawn])
            fresh = [one for pool in pools for one in pool if one.score == -math.inf]
            scores = self.scores(problem, fresh)
            for one, score in zip(fresh, scores, strict=True):
                one.score = score
            if apart:
                kept = [max(pool, key=lambda one: one.score) for pool in pools]
            else:
                every = [one for pool in pools for one in pool]
                kept = sorted(every, key=lambda one: -one.score)[:width]
            step += 1
        finished = [one for one in kept if one.finished] or kept
        return max(finished, key=lambda one: one.score).ids

    @torch.no_grad()
    def cards(self, problem: Problem, own: Cards) -> Ids:
        """Segments up to an uncertain token, drawn until one is accepted."""
        (empty,) = self.scores(problem, [Grown()])
        first = (1 - own.alpha) * empty + own.alpha * own.target_reward
        kept, step = Grown(), 0
        while self._room(problem, kept):
            limit = min(own.segment_cap, self._room(problem, kept))
            best = Grown()
            for attempt in range(own.max_rejections):
                key = problem.key("cards", step, attempt)
                ((y, end),) = self.samples(
                    problem.prompt_ids + kept.ids, [key], limit, own.entropy_threshold
                )
                found = Grown(kept.ids + y, end)
                (score,) = self.scores(problem, [found])
                found.score = score
                share = len(found.ids) / problem.max_new_tokens
                asked = first + (own.target_reward - first) * share
                draw = float(uniforms(problem.key("cards-accept", step, attempt), 1)[0])
                sure = score >= asked
                if sure or (own.beta and draw < math.exp((score - asked) / own.beta)):
                    best = found
                    break
                best = max(best, found, key=lambda one: one.score)
            kept, step = best, step + 1
        return kept.ids

    def samples(
        self,
        text: Ids,
        keys: Sequence[int],
        most: int,
        threshold: float = math.inf,
        stops: Sequence[str] = (),
    ) -> list[tuple[Ids, bool]]:
        """A continuation for each key, and whether it came to an end token."""
        cache = DynamicCache()
        logits = self._forward(torch.tensor([text]), cache).expand(len(keys), -1)
        cache.batch_repeat_interleave(len(keys))
        draws = torch.stack([torch.from_numpy(uniforms(key, most)) for key in keys])
        draws = draws.to(logits.device)
        drawn: list[list[int]] = [[] for _ in keys]
        stopped, ended = [False] * len(keys), [False] * len(keys)
        for place in range(most):
            probabilities = self._nucleus(torch.softmax(_wide(logits) / self.temperature, -1))
            entropy = torch.special.entr(probabilities).sum(-1)
            cumulative = probabilities.double().cumsum(-1)
            target = draws[:, place : place + 1] * cumulative[:, -1:]
            tokens = torch.searchsorted(cumulative, target, right=True)
            tokens = tokens.clamp(max=logits.shape[-1] - 1)
            for i, token in enumerate(tokens.flatten().tolist()):
                if stopped[i]:
                    continue
                uncertain = bool(drawn[i]) and float(entropy[i]) >= threshold
                ended[i] = not uncertain and token in self.ends
                stopped[i] = uncertain or ended[i]
                if not stopped[i]:
                    drawn[i].append(token)
                    stopped[i] = any(stop in self.text(tuple(drawn[i])) for stop in stops)
            if all(stopped) or place == most - 1:
                break
            logits = self._forward(tokens, cache)
        self.chosen_tokens += sum(map(len, drawn)) + sum(ended)
        return [(tuple(ids), end) for ids, end in zip(drawn, ended, strict=True)]

    def scores(self, problem: Problem, responses: Sequence[Grown]) -> list[float]:
        """The reward of each response, all in one batch, padded on the right."""
        whole = [
            self.own(problem.prompt_ids, one.ids)
            + (self.finished_closing if one.finished else self.closing)
            for one in responses
        ]
        width = max(map(len, whole))
        ids = torch.tensor([text + (0,) * (width - len(text)) for text in whole])
        lengths = torch.tensor([len(text) for text in whole])
        mask = (torch.arange(width) < lengths[:, None]).long()
        hidden = self.reward.base_model(
            input_ids=ids.to(self.reward.device),
            attention_mask=mask.to(self.reward.device),
            use_cache=False,
        ).last_hidden_state
        self.reward_tokens += int(lengths.sum())
        last = hidden[torch.arange(len(whole)), lengths - 1]
        found: list[float] = self.reward.score(last).squeeze(-1).tolist()
        return found

    def _forward(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """Logits (N, V) of the next tokens; ``ids`` (N, T) go on from the cache."""
        self.policy_tokens += ids.numel()
        logits: Tensor = self.policy(
            input_ids=ids.to(self.policy.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def _nucleus(self, probabilities: Tensor) -> Tensor:
        """The likeliest tokens that have ``top_p`` together, of rows (N, V)."""
        for row in probabilities if self.top_p < 1 else ():
            before = 0.0
            for token in sorted(range(len(row)), key=lambda token: -float(row[token])):
                before, row[token] = (
                    before + float(row[token]), row[token] if before < self.top_p else 0.0,
                )  # fmt: skip
        return (
            probabilities / probabilities.sum(-1, keepdim=True) if self.top_p < 1 else probabilities
        )

    def _room(self, problem: Problem, one: Grown) -> int:
        return 0 if one.finished else problem.max_new_tokens - len(one.ids)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
