"""Plain implementations of the search methods: one prompt at a time, with plain transformers.

The policy has a KV cache; the reward model scores all candidates of a step in one batch without a
cache, as other code of this field does. Tests compare the responses of the methods with those of
this module, and `jobs/bench.py search` compares their speed. Random numbers have the same keys as
those of the methods.
"""

import math
from collections.abc import Sequence

import torch
from transformers import DynamicCache

from jobs.benchmarks.plain_models import Beam, PlainModels, wide
from orchestrator.data.answers import answers_in
from orchestrator.randomness import uniforms
from orchestrator.search.engines import Ids
from orchestrator.search.method import AnySearchMethod
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
    """A plain implementation of each search method."""

    def answer(self, problem: Problem, method: AnySearchMethod) -> Ids:
        """Return the response of a search method to a prompt."""
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
        """Return one response of the policy without a reward model."""
        key, most = problem.key("base"), problem.max_new_tokens
        if not greedy:
            ((response, _),) = self.samples(problem.prompt_ids, [key], most)
            return response
        return self.args(problem, 0.0, 1)

    @torch.no_grad()
    def best_of_n(self, problem: Problem, n: int) -> Ids:
        """Sample n responses; return the one with the highest reward."""
        drawn = self._responses(problem, n)
        scores = self.scores(problem, drawn)
        return drawn[scores.index(max(scores))].ids

    @torch.no_grad()
    def vote(self, problem: Problem, n: int, weighted: bool, answers: str) -> Ids:
        """Sample n responses; return one whose answer has most votes, or most sigma(reward)."""
        drawn = self._responses(problem, n)
        scores = self.scores(problem, drawn) if weighted else [0.0] * len(drawn)
        extracted = answers_in(answers, [self.text(one.ids) for one in drawn])
        voters = [i for i, answer in enumerate(extracted) if answer is not None] or range(
            len(drawn)
        )
        most, chosen = -1.0, 0
        for i in voters:  # the first of equal weights
            group = [j for j in voters if extracted[j] == extracted[i]]
            weight = sum(1 / (1 + math.exp(-scores[j])) for j in group)
            if weight > most + 1e-12:
                most, chosen = weight, max(group, key=lambda j: scores[j])
        return drawn[chosen].ids

    def _responses(self, problem: Problem, n: int) -> list[Beam]:
        """Sample n responses; return the finished ones, or all if none is finished."""
        keys = [problem.key("sample", i) for i in range(n)]
        drawn = self.samples(problem.prompt_ids, keys, problem.max_new_tokens)
        beams = [Beam(y, end) for y, end in drawn]
        return [one for one in beams if one.finished] or beams

    @torch.no_grad()
    def args(self, problem: Problem, weight: float, k: int, temperature: float = 0.0) -> Ids:
        """ARGS: select or sample each token by logit + weight * reward among the policy's top k."""
        response: Ids = ()
        cache = DynamicCache()
        new = problem.prompt_ids
        while len(response) < problem.max_new_tokens:
            logits = wide(self._forward(torch.tensor([new]), cache)[0])
            values, ids = torch.sort(logits, descending=True, stable=True)
            tokens = ids[:k].tolist()
            ends = [t in self.ends for t in tokens]
            extended = [
                Beam(response + (() if end else (t,)), end)
                for t, end in zip(tokens, ends, strict=True)
            ]
            scores = self.scores(problem, extended)
            totals = [v + weight * s for v, s in zip(values[:k].tolist(), scores, strict=True)]
            token = tokens[totals.index(max(totals))]
            if temperature:
                order = sorted(
                    range(len(tokens)), key=lambda i: (tokens[i] in self.ends, tokens[i])
                )
                exact = torch.tensor([totals[i] for i in order], dtype=torch.float64)
                cumulative = torch.softmax(exact / temperature, -1).cumsum(-1)
                draw = uniforms(problem.key("args_stochastic", len(response)), 1)[0]
                index = torch.searchsorted(cumulative, draw * float(cumulative[-1]), right=True)
                token = tokens[order[int(index)]]
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
        """Beam search: sample chunks of each beam, and keep the best of all; finished beams stay.

        Args:
            problem: the prompt.
            width: number of beams.
            candidates: chunks that are sampled from a beam.
            chunk: tokens of a chunk.
            name: name of the method, for the keys of random numbers.
            stops: texts that also end a chunk.
            apart: whether each beam keeps its own best chunk, instead of the best of all beams.
        """
        beams = [Beam() for _ in range(width)]
        step = 0
        while any(self._room(problem, one) for one in beams):
            pools: list[list[Beam]] = []
            for i, one in enumerate(beams):
                room = self._room(problem, one)
                if not room:
                    pools.append([one])
                    continue
                keys = [problem.key(name, step, i, c) for c in range(candidates)]
                prefix = problem.prompt_ids + one.ids
                drawn = self.samples(prefix, keys, min(chunk, room), stops=stops)
                pools.append([Beam(one.ids + y, end) for y, end in drawn])
            fresh = [one for pool in pools for one in pool if one.score == -math.inf]
            scores = self.scores(problem, fresh)
            for one, score in zip(fresh, scores, strict=True):
                one.score = score
            if apart:
                beams = [max(pool, key=lambda one: one.score) for pool in pools]
            else:
                every = [one for pool in pools for one in pool]
                beams = sorted(every, key=lambda one: -one.score)[:width]
            step += 1
        finished = [one for one in beams if one.finished] or beams
        return max(finished, key=lambda one: one.score).ids

    @torch.no_grad()
    def cards(self, problem: Problem, method: Cards) -> Ids:
        """CARDS: sample segments that end before an uncertain token, until one is accepted."""
        target, beta, threshold = method.target_reward, method.beta, method.entropy_threshold
        assert target is not None and beta is not None and threshold is not None  # calibrated
        (empty,) = self.scores(problem, [Beam()])
        first = (1 - method.alpha) * empty + method.alpha * target
        prefix, step = Beam(), 0
        while self._room(problem, prefix):
            limit = min(method.segment_cap, self._room(problem, prefix))
            best = Beam()
            for attempt in range(method.max_rejections):
                key = problem.key("cards", step, attempt)
                ((y, end),) = self.samples(problem.prompt_ids + prefix.ids, [key], limit, threshold)
                candidate = Beam(prefix.ids + y, end)
                (score,) = self.scores(problem, [candidate])
                candidate.score = score
                share = len(candidate.ids) / problem.max_new_tokens
                required = first + (target - first) * share
                draw = float(uniforms(problem.key("cards-accept", step, attempt), 1)[0])
                sure = score >= required
                if sure or (beta and draw < math.exp((score - required) / beta)):
                    best = candidate
                    break
                best = max(best, candidate, key=lambda one: one.score)
            prefix, step = best, step + 1
        return prefix.ids
