"""`training.precision: auto` of a run: what is measured, and that a rerun takes the same again.

The precision is in the key of every stage that is trained, so the choice must not change with the
noise of a measurement. The output folder keeps it, for each size of models that it has trained: a
rerun on the same device takes it as it is.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass

from orchestrator.checkpoints.model_configs import model_config
from orchestrator.config.tree import Config
from orchestrator.stages.store import Store
from orchestrator.training.job import Precision
from orchestrator.training.precision import device_name, speeds
from orchestrator.training.speed import Shape

FILE = "precision.json"


@dataclass(frozen=True)
class Choice:
    """What `auto` stands for in an output folder.

    Attributes:
        model: the widths of what is trained.
        precision: of autocast.
        device: on which it was chosen.
        reason: as a clause.
    """

    model: str
    precision: Precision
    device: str
    reason: str

    def __str__(self) -> str:
        return f"training.precision auto is {self.precision}: {self.reason}"


def trains(config: Config, model: str | None) -> bool:
    """Whether a plan of all models or of one trains any."""
    models = config.models
    needed = [models.policy, models.orm, *([models.reference] if model == "reference" else [])]
    return None in needed or any(variant.is_trained for variant in config.variants.values())


def choices(config: Config, store: Store, threads: int) -> Iterator[tuple[Choice, bool]]:
    """What `auto` may stand for, in turn, and whether it does so in any case.

    Where it does not, it stands for it if all models are trained in it already. That is bfloat16
    chosen on another device and slow on this one: what is finished is kept, and what is not is not
    done at a fiftieth of the speed. Float32 is nowhere so slow that it should be done again.
    """
    kind = "cuda" if config.cluster.train_worker_gpus else "cpu"
    shape = shape_of(config, config.models.orm or config.models.policy)
    model = "-".join(map(str, astuple(shape)))
    known = _read(store).get(model)
    if known is not None and known.device == device_name(kind):
        yield known, True
        return
    here = speeds(kind, shape, threads)
    if known is not None:
        yield known, known.precision == "float32" or not here.bfloat16_is_slow
    times = " and ".join(f"{1e3 * took:.3g} ms in {name}" for name, took in here.seconds.items())
    reason = f"{here.work} takes {times} on {here.device}" if times else f"of {here.device}"
    yield Choice(model, here.faster, here.device, reason), True


def settled(config: Config, precision: Precision) -> Config:
    """The config with this precision in place of `auto`."""
    training = config.training.model_copy(update={"precision": precision})
    return config.model_copy(update={"training": training})


def remember(store: Store, choice: Choice) -> None:
    """Keeps a choice in the output folder, unless it is there."""
    known = _read(store)
    if known.get(choice.model) == choice:
        return
    plain = {model: asdict(one) for model, one in {**known, choice.model: choice}.items()}
    written = store.local / f".{FILE}.new"
    written.write_text(json.dumps(plain, indent=1) + "\n")
    store.publish(FILE, written)
    written.unlink()


def shape_of(config: Config, checkpoint: str | None) -> Shape:
    """The widths of a given model, or of those that the run makes."""
    size = config.models.architecture
    if checkpoint is None:
        words = config.data.vocabulary()
        return Shape(
            config.models.vocabulary if words is None else len(words),
            size.hidden_size, size.intermediate_size,
            size.num_hidden_layers, size.num_attention_heads, size.num_key_value_heads,
        )  # fmt: skip
    try:
        found = model_config(checkpoint).get_text_config()
    except Exception:  # of a hub that does not answer: told where the model is looked at
        return shape_of(config, None)
    heads = found.num_attention_heads
    return Shape(
        found.vocab_size, found.hidden_size,
        getattr(found, "intermediate_size", None) or 4 * found.hidden_size,
        found.num_hidden_layers, heads, getattr(found, "num_key_value_heads", None) or heads,
    )  # fmt: skip


def _read(store: Store) -> dict[str, Choice]:
    """The choices of the output folder, by the widths."""
    text = store.read(FILE)
    plain = {} if text is None else json.loads(text)
    return {model: Choice(**one) for model, one in plain.items()}
