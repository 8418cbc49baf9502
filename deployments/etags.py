"""an ETag and what a client says that it has -> whether it is to be sent again (RFC 9110, 13.1.2)"""

import re

TAG = re.compile(r'"[^"]*"')


def is_known(tag: str, *, if_none_match: str | None) -> bool:
    """The header is a list of tags, weak ones among them, or a `*` for whatever there is."""
    named = (if_none_match or "").strip()
    return named == "*" or tag in TAG.findall(named)
