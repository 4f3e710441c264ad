"""Text that has to fit."""


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
