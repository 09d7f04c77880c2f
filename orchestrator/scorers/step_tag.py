"""Step-tag reward models: a tag is written behind every step, and its reward is read there.

The response is written as the model was trained (`tagged.py`) and is the trunk of a packed row; a
prefix that ends inside a step has a branch with the tag: all prefixes come from one pass. A
prefix's score is an aggregate of the rewards of its steps, the last and perhaps incomplete one
included. What a template writes behind a response comes after the last tag and cannot change its
reward: open and closed scoring are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.choices import Aggregation, Position
from orchestrator.conversations.chat import Chat
from orchestrator.rewards.aggregation import aggregate
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.rewards.packed import Branch, PackedRow
from orchestrator.scorers.formats import StepFormat
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Scorer, ScorerSpec
from orchestrator.scorers.step_formats import step_chat
from orchestrator.scorers.step_heads import load_step_model
from orchestrator.scorers.tagged import Reading, TaggedText
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class StepTagScorer(Scorer):
    """A process reward model that judges a response step by step, at tags.

    Args:
        checkpoint: folder or hub name.
        position: has no effect on a score.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name.
        aggregation: how the rewards of the steps, probabilities, become a prefix's score.
        step_delimiter: text that ends a step; None is the form's own: a line end for a language
            model (Math-Shepherd), the tag where that is white space, else a blank line.
        step_tag: None is the tag with which the public models of this form were trained.
        branch_memory_mib: what the branches of a pass may take beside their trunks.
        step_format: how it reads steps; None is what the checkpoint tells.
        fold_system: as of ``ScorerSpec``.

    Raises:
        ValueError: as of ``load_step_model``, or the tokenizer does not keep the delimiter.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        aggregation: Aggregation = "last",
        step_delimiter: str | None = None,
        step_tag: str | None = None,
        branch_memory_mib: int = BRANCH_MEMORY_MIB,
        step_format: StepFormat | None = None,
        *,
        fold_system: bool = True,
    ) -> None:
        spec = ScorerSpec(
            checkpoint,
            step_delimiter=step_delimiter,
            step_tag=step_tag,
            step_format=step_format,
            fold_system=fold_system,
        )
        super().__init__(step_chat(spec), position, policy_chat)
        self.context = context_of(checkpoint)
        loaded = load_step_model(spec, self.chat, device)
        self._how: Aggregation = aggregation
        self._every = aggregation != "last"  # whether earlier steps' rewards are read too
        self._form, self._bounded = loaded.form, loaded.bounded
        self._pass = PackedPass(loaded.model, self.chat.end_ids[-1], loaded.head, branch_memory_mib)

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """As every scorer's; one pass a response. Cuts count its own tokens: no tags."""
        rows, steps = [], []
        for prompt, response, own in zip(prompts, responses, cuts, strict=True):
            row, numbers = self._row(prompt, response, own)
            rows.append(row)
            steps.append(numbers)
        self.check_room([row.longest for row in rows])
        results = []
        for numbers, rewards in zip(steps, self._pass.rows(rows), strict=True):
            scores = [self._of([rewards[i] for i in own]) for own in numbers]
            results.append(scores * (len(positions) or 1))
        return results

    def score_own(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's; the prefix of a request is computed once for all its extensions."""
        plans = [self._plan(request) for request in requests]
        trunks = [(row.prompt_ids, plan.trunk) for row, plan in zip(requests, plans, strict=True)]
        rewards, tokens = self._pass.branches(trunks, [plan.branches for plan in plans])
        found = []
        for (prompt, trunk), plan, own, count in zip(trunks, plans, rewards, tokens, strict=True):
            scores = (self._of([own[i] for i in numbers]) for numbers in plan.steps)
            whole = sum(
                len(prompt + trunk) + sum(len(plan.branches[i].token_ids) for i in numbers)
                for numbers in plan.steps
            )
            found.append(Scored(tuple(scores), count, max(whole - count, 0)))
        return found

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Tokens of one pass, tags included."""
        return self._row(prompt, response, cuts)[0].tokens

    def _of(self, rewards: Sequence[float]) -> float:
        return aggregate(rewards, self._how, probabilities=self._bounded)

    def closing(self, position: Position) -> Ids:
        """The tag, in every position."""
        return self._form.tag_ids

    def _row(
        self, prompt: Ids, response: Ids, cuts: Sequence[int]
    ) -> tuple[PackedRow, list[tuple[int, ...]]]:
        """One response, and the numbers of the branches that each cut's step rewards come from."""
        wanted = [min(t, len(response)) for t in cuts]
        text, read = TaggedText(self.chat, self._form), 0
        readings = {}
        for t in sorted(set(wanted)):
            text.read(response[read:t])
            readings[t], read = text.readings(self._every), t
        plan = _plan(text.token_ids, [readings[t] for t in wanted])
        return PackedRow(prompt, (plan.trunk,), tuple(plan.branches)), plan.steps

    def _plan(self, request: ScoreRequest) -> "_Plan":
        prefix = TaggedText(self.chat, self._form)
        prefix.read(request.prefix_ids)
        readings = []
        for extension in request.extensions:
            text = prefix.copy()
            text.read(extension)
            readings.append(text.readings(self._every, len(prefix.closed)))
        return _plan(prefix.token_ids, readings)


@dataclass(frozen=True)
class _Plan:
    """A trunk, its branches, and for each text the numbers of those that its step rewards are."""

    trunk: Ids
    branches: list[Branch]
    steps: list[tuple[int, ...]]


def _plan(trunk: Ids, texts: Sequence[Sequence[Reading]]) -> _Plan:
    """Readings of some texts as branches of one trunk, each branch once."""
    numbers: dict[Branch, int] = {}
    steps = [
        tuple(numbers.setdefault(reading.branch(trunk), len(numbers)) for reading in readings)
        for readings in texts
    ]
    return _Plan(trunk, list(numbers), steps)
