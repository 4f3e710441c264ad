"""What a request says of its body's length."""


def is_length_within(content_length: bytes, most: int) -> bool:
    """Whether a Content-Length is one, and not greater than `most`."""
    # Python refuses to read thousands of digits, be they zeros.
    return content_length.isdigit() and len(content_length) < 10 and int(content_length) <= most
