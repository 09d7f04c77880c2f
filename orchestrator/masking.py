"""Masking of secrets in addresses, so that files, logs and MLflow do not contain them."""

import re

_USERINFO = re.compile(r"([a-zA-Z][\w+.\-]*://)[^/\s'\"]*@")
_SECRET_IN_QUERY = re.compile(
    r"([?&][\w.\-]*(?:password|token|secret|api_?key|access_?key|signature)[\w.\-]*=)[^&\s#'\"]+",
    re.IGNORECASE,
)
_MASK = "***"


def mask_secrets(text: str) -> str:
    """Mask the userinfo of every URI in ``text``, and query values whose names suggest a secret."""
    return _SECRET_IN_QUERY.sub(rf"\g<1>{_MASK}", _USERINFO.sub(rf"\g<1>{_MASK}@", text))
