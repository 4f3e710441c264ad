"""Text that has to fit, and to be stored."""


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, cut after a sentence where possible, else after a word."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    for mark in (". ", "! ", "? ", "\n", " "):
        cut = head.rfind(mark)
        if cut >= limit // 2:
            return head[: cut + 1].rstrip() + "…"
    return head + "…"


def storable(text: str) -> str:
    """Without what neither PostgreSQL nor protobuf takes: NUL, and halves of surrogate pairs.

    JSON can hold both, so whatever vendors answer may, too.
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
