"""The error of a config that cannot be run, and how it shows a value."""

SHOWN = 200  # characters of a value that an error repeats: a path has room
_END = 40  # of them from its end: a path's last part tells it from others


class ConfigError(ValueError):
    """The config cannot be run; the message names field, value and what is valid."""


def shown(value: object) -> str:
    """A value as Python writes it, without the middle of a long one."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return f"a {type(value).__name__} of thousands of digits"
    return _shortened(text)


def shown_name(name: object) -> str:
    """A name or path as ``shown``, without quotes."""
    return _shortened(repr(str(name))[1:-1])


def reason_of(error: BaseException) -> str:
    """What another library says is wrong, as one line that is not longer than a value."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _shortened(" ".join(str(text).split()))


def _shortened(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN - _END]}...{text[-_END:]} ({len(text):,} characters)"
