"""Config sections of what comes after training: decoding, search methods, evaluation, tracking."""

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.config.fields import (
    LARGEST,
    Count,
    CountOrNone,
    Different,
    Flag,
    NotNegative,
    Number,
    Positive,
    Quantile,
    Real,
    Text,
    Whole,
)
from orchestrator.config.sections import Section

MLFLOW_NAME = 200  # characters of an experiment, to which a stage is added
GRID = 200  # prefix lengths that are measured
COLDEST = 1e-3  # temperature: below, logits divided by it leave float32
Temperature = Annotated[float, Field(ge=COLDEST, le=LARGEST), Number]


class ChatConfig(Section):
    """How conversations are written by models' chat templates."""

    fold_system: Flag = True  # a system message that a template does not write: into the user's


class DecodingConfig(Section):
    """How the policy samples: the same for every method."""

    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), Number] = 1.0
    max_new_tokens: Count = 64


class ScoringConfig(Section):
    """Where a prefix is scored: after the template's closing suffix, or at its last token."""

    position: Literal["closed", "open"] = "closed"
    finished: Literal["template", "position"] = "template"  # where search scores what is finished
    branch_memory_mib: Count = 256  # what the branches of a pass may take beside their trunks


class BestOfNConfig(Section):
    """BoN and votes: of n whole responses, drawn once and shared by all scorers."""

    prompts: Count | None = None  # the first so many test prompts; null takes all
    n: Count = 16


class VoteConfig(BestOfNConfig):
    """Weighted BoN and majority vote; ``answers`` names how an answer is found in a text."""

    answers: Literal["gsm8k", "last_number", "boxed", "math"] = "gsm8k"


class ArgsConfig(Section):
    """ARGS-greedy (Algorithm 2); the paper: weight 1.5, k 30."""

    prompts: Count | None = None
    weight: Real = 1.5
    k: Count = 30


class StochasticArgsConfig(ArgsConfig):
    """ARGS that draws the next token from softmax(value / temperature)."""

    temperature: Temperature = 0.7


class BeamConfig(Section):
    """CBS (Algorithm 3); the paper: 8 beams, 8 candidates, chunks of 30 tokens."""

    prompts: Count | None = None
    beams: Count = 8
    candidates: Count = 8
    chunk: Count = 30


class TokenBeamConfig(BeamConfig):
    """TBS: CBS with chunks of one token."""

    chunk: Annotated[Literal[1], Whole] = 1


class StepBeamConfig(Section):
    """Beam search over steps, which end with the delimiter."""

    prompts: Count | None = None
    beams: Count = 4
    candidates: Count = 4
    delimiter: Text = "\n"


class DvtsConfig(Section):
    """DVTS: so many subtrees, each greedy over candidates for the next step."""

    prompts: Count | None = None
    subtrees: Count = 4
    candidates: Count = 4
    delimiter: Text = "\n"


class GeneralConfig(Section):
    """Algorithm 1 at any granularity."""

    prompts: Count | None = None
    granularity: Literal["token", "chunk", "sentence", "step", "response"] = "sentence"
    sequences: Count = 4
    candidates: Count = 4
    chunk: Count = 30  # of granularity chunk
    delimiter: Text = "\n"  # of granularity step


class CardsConfig(Section):
    """CARDS (Algorithm 4). Thresholds as numbers, or null and then by quantile on calibration data.

    Two reward models have two scales, so that one r* means nothing for both: by default r* is the
    scorer's own quantile over whole responses of the base policy, beta their standard deviation.
    """

    prompts: Count | None = None
    entropy_threshold: Real | None = None  # tau_u in nats; the paper: 7.0
    entropy_quantile: Quantile = 0.9
    target_reward: Real | None = None  # r*
    target_quantile: Quantile = 0.7
    alpha: Quantile = 0.5
    beta: Positive | None = None
    segment_cap: Count = 16
    max_rejections: Count = 8


class SearchConfig(Section):
    """Which methods run, with which scorers; null turns a method off."""

    # null: the ORM and all variants
    scorers: Annotated[list[Text], Field(min_length=1), Different] | None = None
    wave_size: Count = 75  # prompts that search in step, their requests batched together
    engine: Literal["auto", "transformers", "vllm"] = "auto"  # auto: what was measured faster
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"  # of both models' weights
    bon: BestOfNConfig | None = BestOfNConfig()
    weighted_bon: VoteConfig | None = None  # where answers can be extracted
    vote: VoteConfig | None = None  # majority vote, without a scorer; likewise
    args: ArgsConfig | None = ArgsConfig()
    args_stochastic: StochasticArgsConfig | None = None
    tbs: TokenBeamConfig | None = TokenBeamConfig()
    cbs: BeamConfig | None = BeamConfig()
    cards: CardsConfig | None = CardsConfig()
    general: GeneralConfig | None = None
    step_beam: StepBeamConfig | None = None
    dvts: DvtsConfig | None = None


class EvaluationConfig(Section):
    """What is measured beside the cells."""

    agreement_grid: Annotated[list[Count], Different] = Field(
        default=[5, 10, 15, 20, 25, 30, 35, 40], min_length=1, max_length=GRID
    )
    pairs_per_prompt: Count = 4  # preference pairs made of a test prompt's own samples
    bootstrap_samples: Count = 2_000


class TrackingConfig(Section):
    """MLflow: null means SQLite in the output folder, and an experiment named after the task."""

    uri: Text | None = None
    experiment: Annotated[Text, Field(max_length=MLFLOW_NAME)] | None = None


class ClusterConfig(Section):
    """Logical CPUs that each process asks Ray for; few enough that data tasks find a place."""

    train_worker_cpus: Positive = 0.4
    actor_cpus: Positive = 0.1  # the policy, the reward and the reference actors, each
    data_task_cpus: Positive = 0.2
    actor_gpus: NotNegative = 0
    train_worker_gpus: NotNegative = 0
    policy_actors: Count = 2
    reward_actors: Count = 2
    search_actors: CountOrNone = 2  # of both models; 0: policy and reward apart
    reference_actors: Count = 1
    policy_cache_mib: Count | None = None  # of keys and values; null: the engine's default
    reward_cache_mib: Count | None = None
    threads: Count | None = None  # torch threads that a pool's processes share; null: all cores


class StorageConfig(Section):
    """What is kept on disk."""

    checkpoints_kept: Count = 3  # versions of a stage's checkpoint; older keys' are deleted
    free_gib: NotNegative = 1.0  # free disk that a stage must leave
