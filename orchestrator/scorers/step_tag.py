"""Step-tag reward models: a tag is written behind every step, and its reward is read there.

The response is cut into steps at a delimiter, the tag's tokens stand behind each complete step in
the trunk of a packed row, and each prefix that ends inside a step has a branch with the tag: all
prefixes come from one pass. A prefix's score is an aggregate of the rewards of its steps, the last
and perhaps incomplete one included. What a template writes behind a response comes after the last
tag and cannot change its reward: open and closed scoring are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.rewards.aggregation import Aggregation, aggregate
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.rewards.packed import Branch, PackedRow
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Position, Scorer
from orchestrator.scorers.step_heads import load_step_model
from orchestrator.scorers.steps import StepReader, step_ends
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class StepTagScorer(Scorer):
    """A process reward model that judges a response step by step, at tags.

    Args:
        checkpoint: folder or hub name.
        position: has no effect on a score.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name.
        aggregation: how the rewards of the steps, probabilities, become a prefix's score.
        step_delimiter: text that ends a step; None is a blank line, or the tag where that is white
            space.
        step_tag: None is the tag with which the public models of this form were trained.
        branch_memory_mib: what the branches of a pass may take beside their trunks.
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
    ) -> None:
        super().__init__(load_chat(checkpoint), position, policy_chat)
        found = load_step_model(checkpoint, self.chat, step_delimiter, step_tag, device)
        self._how: Aggregation = aggregation
        self._all = aggregation != "last"  # whether earlier steps' rewards are read too
        self._delimiter = found.delimiter
        self._tag = found.tag_ids
        self._written = self._tag if found.written else ()
        self._pass = PackedPass(found.model, self.chat.end_ids[-1], found.head, branch_memory_mib)

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """As every scorer's; one pass a response. Cuts count its tokens without tags."""
        rows, reads = [], []
        for prompt, response, row_cuts in zip(prompts, responses, cuts, strict=True):
            wanted = [min(t, len(response)) for t in row_cuts]
            read = response[: max(wanted, default=0)]
            ends = step_ends(self.chat, read, self._delimiter)
            earlier = ends if self._all else []
            number = {t: i for i, t in enumerate(sorted({*wanted, *earlier}))}
            branches = tuple(self._branch(t, ends) for t in number)
            rows.append(PackedRow(prompt, (self._tagged(read, ends),), branches))
            steps = ([end for end in earlier if end < t] + [t] for t in wanted)
            reads.append([[number[t] for t in own] for own in steps])
        results = []
        for numbers, rewards in zip(reads, self._pass.rows(rows), strict=True):
            scores = [aggregate([rewards[i] for i in own], self._how) for own in numbers]
            results.append(scores * (len(positions) or 1))
        return results

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's; the prefix of a request is computed once for all its extensions."""
        if not self.shares_tokenizer:
            return super().score(requests)
        plans = [self._plan(request) for request in requests]
        trunks = [(row.prompt_ids, plan.trunk) for row, plan in zip(requests, plans, strict=True)]
        rewards, tokens = self._pass.branches(trunks, [plan.branches for plan in plans])
        found = []
        for plan, own, count in zip(plans, rewards, tokens, strict=True):
            scores = (aggregate([own[i] for i in numbers], self._how) for numbers in plan.steps)
            found.append(Scored(tuple(scores), count))
        return found

    def tokens_of(self, prompt: Ids, response: Ids) -> int:
        """Tokens computed for the score of one whole response by itself, tags included."""
        ends = step_ends(self.chat, response, self._delimiter)
        last = self._branch(len(response), ends)
        return len(prompt) + len(self._tagged(response, ends)) + len(last.token_ids)

    def closing(self, position: Position) -> Ids:
        """The tag, in every position."""
        return self._tag

    def _tagged(self, tokens: Ids, ends: Sequence[int]) -> Ids:
        """Tokens with the tag written behind each complete step; ``ends`` count from the first."""
        found: Ids = ()
        start = 0
        for end in ends:
            found += tokens[start:end] + self._written
            start = end
        return found + tokens[start:]

    def _branch(self, cut: int, ends: Sequence[int]) -> Branch:
        """What reads the reward of the step in which y_<cut ends, behind the tagged response."""
        tags = len(self._written) * sum(end <= cut for end in ends)
        # Where a step ends its tag stands in the trunk already: one tag, not two.
        return Branch(cut + tags, () if cut in ends else self._tag)

    def _plan(self, request: ScoreRequest) -> "_Plan":
        prefix = request.prefix_ids
        reader = StepReader(self.chat, self._delimiter)
        ends = [t for t, token_id in enumerate(prefix, 1) if reader.read(token_id)]
        trunk = self._tagged(prefix, ends)
        shared = ends if self._all else []
        branches = [self._branch(end, ends) for end in shared]
        steps = []
        for extension in request.extensions:
            own = reader.copy()
            inside = [t for t, token_id in enumerate(extension, 1) if own.read(token_id)]
            # Several steps end in one extension: each is read at the end of a branch of its own.
            inner = [t for t in inside if t < len(extension)] if self._all else []
            added = [
                Branch(len(trunk), self._tagged(extension[:t], [end for end in inside if end <= t]))
                for t in inner
            ]
            tail = self._tagged(extension, inside)
            if extension:
                tail += () if len(extension) in inside else self._tag
                added.append(Branch(len(trunk), tail))
            else:
                added.append(self._branch(len(prefix), ends))
            whole = len(prefix) + len(extension)
            numbers = [number for number, end in enumerate(shared) if end < whole]
            steps.append((*numbers, *range(len(branches), len(branches) + len(added))))
            branches += added
        return _Plan(trunk, branches, steps)


@dataclass(frozen=True)
class _Plan:
    """A request's tagged prefix, its branches, and the numbers of each extension's step rewards."""

    trunk: Ids
    branches: list[Branch]
    steps: list[tuple[int, ...]]
