"""Sample and score with plain transformers, one prompt at a time, for ``search_loop.py``.

The policy has a KV cache; the reward model scores all candidates of a step in one batch without a
cache. Random numbers have the same keys as those of the search methods.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.randomness import uniforms
from orchestrator.search.engines import Ids
from orchestrator.search.problem import Problem


@dataclass
class Beam:
    """A partial response, whether it is finished, and its score."""

    ids: Ids = ()
    finished: bool = False
    score: float = -math.inf


@dataclass
class PlainModels:
    """Both models, in evaluation mode, on one device.

    Attributes:
        policy: the policy.
        reward: the reward model.
        ends: token ids that end a response.
        closing: ids that are appended to a prefix before it is scored.
        temperature: sampling temperature.
        top_p: probability mass of nucleus sampling.
        policy_tokens: tokens that the policy has computed.
        chosen_tokens: tokens that were sampled or chosen, including end tokens.
        reward_tokens: tokens that the reward model has computed.
        text: converts ids of the policy to text, for stops and votes.
        reward_ids: returns the reward model's ids of a prompt and a response, for another
            tokenizer.
        finished_closing: ids that are appended to a finished response before it is scored.
    """

    policy: PreTrainedModel
    reward: PreTrainedModel
    ends: Ids = ()
    closing: Ids = ()
    temperature: float = 1.0
    top_p: float = 1.0
    policy_tokens: int = 0
    chosen_tokens: int = 0
    reward_tokens: int = 0
    text: Callable[[Ids], str] = str
    reward_ids: Callable[[Ids, Ids], Ids] = lambda prompt, response: prompt + response
    finished_closing: Ids = ()

    def samples(
        self,
        prefix_ids: Ids,
        keys: Sequence[int],
        limit: int,
        threshold: float = math.inf,
        stops: Sequence[str] = (),
    ) -> list[tuple[Ids, bool]]:
        """Return a continuation for each key, and whether it reached an end token.

        Args:
            prefix_ids: prompt and the response so far.
            keys: keys of the random streams.
            limit: largest number of tokens of a continuation.
            threshold: a continuation stops before the first token, except its first, at which the
                entropy in nats is this or more.
            stops: texts after which a continuation stops.
        """
        cache = DynamicCache()
        logits = self._forward(torch.tensor([prefix_ids]), cache).expand(len(keys), -1)
        cache.batch_repeat_interleave(len(keys))
        draws = torch.stack([torch.from_numpy(uniforms(key, limit)) for key in keys])
        draws = draws.to(logits.device)
        drawn: list[list[int]] = [[] for _ in keys]
        stopped, ended = [False] * len(keys), [False] * len(keys)
        for position in range(limit):
            probabilities = self._nucleus(torch.softmax(wide(logits) / self.temperature, -1))
            entropy = torch.special.entr(probabilities).sum(-1)
            cumulative = probabilities.double().cumsum(-1)
            target = draws[:, position : position + 1] * cumulative[:, -1:]
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
            if all(stopped) or position == limit - 1:
                break
            logits = self._forward(tokens, cache)
        self.chosen_tokens += sum(map(len, drawn)) + sum(ended)
        return [(tuple(ids), end) for ids, end in zip(drawn, ended, strict=True)]

    def scores(self, problem: Problem, responses: Sequence[Beam]) -> list[float]:
        """Return the reward of each response, computed in one batch with padding on the right."""
        rows = [
            self.reward_ids(problem.prompt_ids, one.ids)
            + (self.finished_closing if one.finished else self.closing)
            for one in responses
        ]
        width = max(map(len, rows))
        ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(width) < lengths[:, None]).long()
        hidden = self.reward.base_model(
            input_ids=ids.to(self.reward.device),
            attention_mask=mask.to(self.reward.device),
            use_cache=False,
        ).last_hidden_state
        self.reward_tokens += int(lengths.sum())
        last = hidden[torch.arange(len(rows)), lengths - 1]
        scores: list[float] = self.reward.score(last).squeeze(-1).tolist()
        return scores

    def _forward(self, ids: Tensor, cache: DynamicCache) -> Tensor:
        """Return logits (N, V) of the next tokens; ``ids`` (N, T) continue the cache."""
        self.policy_tokens += ids.numel()
        logits: Tensor = self.policy(
            input_ids=ids.to(self.policy.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def _nucleus(self, probabilities: Tensor) -> Tensor:
        """Keep the most probable tokens with total probability ``top_p``.

        The rows (N, V) are changed in place.
        """
        if self.top_p >= 1:
            return probabilities
        for row in probabilities:
            before = 0.0
            for token in sorted(range(len(row)), key=lambda token: -float(row[token])):
                before, row[token] = (
                    before + float(row[token]), row[token] if before < self.top_p else 0.0,
                )  # fmt: skip
        return probabilities / probabilities.sum(-1, keepdim=True)

    def _room(self, problem: Problem, one: Beam) -> int:
        return 0 if one.finished else problem.max_new_tokens - len(one.ids)


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32 or a wider dtype."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
