"""Loading a checkpoint's tokenizer; errors of damaged files name the file in one sentence."""

from pathlib import Path

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.files import as_value_error, has_file, in_one_line, read_json
from orchestrator.checkpoints.model_configs import model_config
from orchestrator.checkpoints.weights import read_config

_TEMPLATE = "chat_template.jinja"
_JSON = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
_VOCABULARIES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


def load_tokenizer(checkpoint: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint folder or hub name. Runs no remote code.

    An adapter without tokenizer files has that of its base model.

    Raises:
        ValueError: a file is missing or damaged, or the chat template is not valid Jinja.
    """
    source, options = checkpoint, {}
    if (adapter := adapter_of(checkpoint)) is not None:
        if any(has_file(checkpoint, name) for name in _TOKENIZER):
            options = {
                "config": model_config(checkpoint)
            }  # it decides the tokenizer class of some models
        else:
            source = adapter.base
    if Path(source).is_dir() and not any(any(Path(source).glob(name)) for name in _VOCABULARIES):
        raise ValueError(f"{source}: it has no tokenizer; valid: a folder with a {_TOKENIZER[1]}")
    for name in _JSON:
        read_json(source, name)
    read_config(checkpoint)  # checked here, as transformers reads it for the tokenizer too
    with as_value_error(f"{source}: its tokenizer's files ({', '.join(_JSON)}, {_TEMPLATE})"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    _check_syntax(source, tokenizer)
    return tokenizer


def template_file(checkpoint: str) -> str:
    """Return the name of the file that holds a checkpoint's chat template."""
    return _TEMPLATE if has_file(checkpoint, _TEMPLATE) else _TOKENIZER[0]


def _check_syntax(checkpoint: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.chat_template is None:
        return
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"{checkpoint}: {template_file(checkpoint)} is not a Jinja template: line"
            f" {error.lineno}:"
            f" {in_one_line(error)}"
        ) from error
    except (TemplateError, ValueError, TypeError):
        return  # the template refuses this conversation, but its syntax is valid
