"""Reward-guided search the straightforward way: one prompt at a time, with plain transformers.

The policy goes on with a key/value cache, the reward model scores all candidates of a step in one
batch without any. What other code of this field does, written down in full, as the oracle of every
method's text and the other side of `jobs/bench.py search`. Draws are keyed as the methods' are.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from jobs.benchmarks.plain_models import Beam, PlainModels, wide
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


class Loop(PlainModels):
    """The oracle of each search method."""

    def answer(self, problem: Problem, method: SearchMethod[Any]) -> Ids:
        """The response of a search method."""
        most, name = problem.max_new_tokens, method.name
        stops: Sequence[str] = ()
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
                if method.granularity == "sentence":
                    stops = SENTENCE_ENDS
                elif method.granularity == "step":
                    stops = (method.delimiter,)
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

    def _whole(self, problem: Problem, n: int) -> list[Beam]:
        """N samples, without those cut off at the length, unless all are."""
        keys = [problem.key("sample", i) for i in range(n)]
        drawn = self.samples(problem.prompt_ids, keys, problem.max_new_tokens)
        every = [Beam(y, end) for y, end in drawn]
        return [one for one in every if one.finished] or every

    @torch.no_grad()
    def args(self, problem: Problem, weight: float, k: int, temperature: float = 0.0) -> Ids:
        """The next token by logit + weight * reward, of the policy's top k; drawn, or the best."""
        response: Ids = ()
        cache = DynamicCache()
        new = problem.prompt_ids
        while len(response) < problem.max_new_tokens:
            logits = wide(self._forward(torch.tensor([new]), cache)[0])
            values, ids = torch.sort(logits, descending=True, stable=True)
            tokens = ids[:k].tolist()
            ends = [t in self.ends for t in tokens]
            grown = [
                Beam(response + (() if end else (t,)), end)
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
        kept = [Beam() for _ in range(width)]
        step = 0
        while any(self._room(problem, one) for one in kept):
            pools: list[list[Beam]] = []
            for i, one in enumerate(kept):
                room = self._room(problem, one)
                if not room:
                    pools.append([one])
                    continue
                keys = [problem.key(name, step, i, c) for c in range(candidates)]
                text = problem.prompt_ids + one.ids
                drawn = self.samples(text, keys, min(chunk, room), stops=stops)
                pools.append([Beam(one.ids + y, end) for y, end in drawn])
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
    def cards(self, problem: Problem, method: Cards) -> Ids:
        """Segments up to an uncertain token, drawn until one is accepted."""
        target, beta, threshold = method.target_reward, method.beta, method.entropy_threshold
        assert target is not None and beta is not None and threshold is not None  # calibrated
        (empty,) = self.scores(problem, [Beam()])
        first = (1 - method.alpha) * empty + method.alpha * target
        kept, step = Beam(), 0
        while self._room(problem, kept):
            limit = min(method.segment_cap, self._room(problem, kept))
            best = Beam()
            for attempt in range(method.max_rejections):
                key = problem.key("cards", step, attempt)
                ((y, end),) = self.samples(problem.prompt_ids + kept.ids, [key], limit, threshold)
                found = Beam(kept.ids + y, end)
                (score,) = self.scores(problem, [found])
                found.score = score
                share = len(found.ids) / problem.max_new_tokens
                asked = first + (target - first) * share
                draw = float(uniforms(problem.key("cards-accept", step, attempt), 1)[0])
                sure = score >= asked
                if sure or (beta and draw < math.exp((score - asked) / beta)):
                    best = found
                    break
                best = max(best, found, key=lambda one: one.score)
            kept, step = best, step + 1
        return kept.ids
