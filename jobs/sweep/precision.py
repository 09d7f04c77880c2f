"""The precision that `training.precision: auto` stands for, measured once and then stored.

The precision is part of the key of every trained stage, so measurement noise must not change it.
The output folder stores the choice for each size of trained models; a rerun on the same device uses
the stored choice.
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
    """The precision that `auto` stands for in an output folder.

    Attributes:
        model: the widths of the trained models.
        precision: precision of autocast.
        device: the device on which it was chosen.
        reason: the reason, as a clause.
    """

    model: str
    precision: Precision
    device: str
    reason: str

    def __str__(self) -> str:
        return f"training.precision auto is {self.precision}: {self.reason}"


def trains(config: Config, model: str | None) -> bool:
    """Return whether a plan of all models, or of one, trains any."""
    models = config.models
    needed = [models.policy, models.orm, *([models.reference] if model == "reference" else [])]
    return None in needed or any(variant.is_trained for variant in config.variants.values())


def choices(config: Config, store: Store, threads: int) -> Iterator[tuple[Choice, bool]]:
    """Yield the candidates for `auto` in order, each with whether it is certain.

    A candidate that is not certain applies only if all models are already trained in it. This is
    the case of bfloat16 that was chosen on another device and is slow on this one: finished models
    are kept, but no model is trained fifty times slower. Float32 is never that slow.
    """
    kind = "cuda" if config.cluster.train_worker_gpus else "cpu"
    shape = shape_of(config, config.models.orm or config.models.policy)
    model = "-".join(map(str, astuple(shape)))
    stored = _read(store).get(model)
    if stored is not None and stored.device == device_name(kind):
        yield stored, True
        return
    here = speeds(kind, shape, threads)
    if stored is not None:
        yield stored, stored.precision == "float32" or not here.bfloat16_is_slow
    times = " and ".join(f"{1e3 * took:.3g} ms in {name}" for name, took in here.seconds.items())
    reason = f"{here.work} takes {times} on {here.device}" if times else f"of {here.device}"
    yield Choice(model, here.faster, here.device, reason), True


def with_precision(config: Config, precision: Precision) -> Config:
    """Return the config with a precision in place of `auto`."""
    training = config.training.model_copy(update={"precision": precision})
    return config.model_copy(update={"training": training})


def remember(store: Store, choice: Choice) -> None:
    """Store a choice in the output folder, unless it is stored already."""
    stored = _read(store)
    if stored.get(choice.model) == choice:
        return
    plain = {model: asdict(one) for model, one in {**stored, choice.model: choice}.items()}
    written = store.local / f".{FILE}.new"
    written.write_text(json.dumps(plain, indent=1) + "\n")
    store.publish(FILE, written)
    written.unlink()


def shape_of(config: Config, checkpoint: str | None) -> Shape:
    """Return the widths of a checkpoint, or of the models that the run makes."""
    size = config.models.architecture
    if checkpoint is None:
        words = config.data.vocabulary()
        return Shape(
            config.models.vocabulary if words is None else len(words),
            size.hidden_size, size.intermediate_size,
            size.num_hidden_layers, size.num_attention_heads, size.num_key_value_heads,
        )  # fmt: skip
    try:
        sizes = model_config(checkpoint).get_text_config()
    except Exception:  # the check of the model reports a hub that does not answer
        return shape_of(config, None)
    heads = sizes.num_attention_heads
    return Shape(
        sizes.vocab_size, sizes.hidden_size,
        getattr(sizes, "intermediate_size", None) or 4 * sizes.hidden_size,
        sizes.num_hidden_layers, heads, getattr(sizes, "num_key_value_heads", None) or heads,
    )  # fmt: skip


def _read(store: Store) -> dict[str, Choice]:
    """Read the choices that the output folder stores, by the widths of the models."""
    text = store.read(FILE)
    plain = {} if text is None else json.loads(text)
    return {model: Choice(**one) for model, one in plain.items()}
