"""Settings that libraries read at import: their progress bars and advice give way to ours."""

import os
from pathlib import Path

SETTINGS = {
    "TOKENIZERS_PARALLELISM": "false",  # workers fork after tokenizing
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
CARDS = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's and AMD's


def quieten() -> None:
    """Sets what the user has not set."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not any(Path(card).exists() for card in CARDS):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns where it finds none
