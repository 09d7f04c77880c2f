"""The error of a config that cannot run, and how errors show values."""

SHOWN = 200  # characters of a value that an error repeats, enough for most paths
_END = 40  # those from its end, such as the name of a file


class ConfigError(ValueError):
    """The config cannot run; the message names the field, its value and valid values."""


def shown(value: object) -> str:
    """Return the repr of a value; the middle of a long one is left out."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"
    return _shortened(text)


def shown_name(name: object) -> str:
    """Return a name or path as ``shown`` does, without quotes."""
    return _shortened(repr(str(name))[1:-1])


def reason_of(error: BaseException) -> str:
    """Return the message of another library's error on one line, shortened like a value."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _shortened(" ".join(str(text).split()))


def reason_about(checkpoint: str, error: BaseException) -> str:
    """Return the message of an error, without the checkpoint with which it may begin.

    It is for messages that name the checkpoint themselves.
    """
    return str(error).removeprefix(f"{checkpoint}: ")


def _shortened(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN - _END]}...{text[-_END:]} ({len(text):,} characters)"
