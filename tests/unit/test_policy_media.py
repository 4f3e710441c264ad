"""Which addresses of files are taken, and which files."""

import pytest

from services.common.errors import InvalidInputError
from services.messaging.domain.media_address import check_media_address
from services.messaging.domain.whatsapp_media import max_bytes


@pytest.mark.parametrize(
    "url",
    [
        "https://files.example.com/plan.pdf",
        "https://files.example.com/a/b/PHOTO.JPG?width=100#top",
        "https://files.example.com:8443/voice%2Eogg",
        "https://files.example.com/download?id=17",
        "https://files.example.com",
        "https://xn--4dbrk0ce.example/a.png",
        "https://93.184.215.14/a.png",
        "https://[2606:2800:220:1::1]/a.png",
        "HTTPS://files.example.com./a.png",
    ],
)
def test_public_addresses_are_taken(url: str) -> None:
    """A file on the public internet is taken, whatever its name."""
    check_media_address(url, "media_url")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "files.example.com/a.png",
        "http://files.example.com/a.png",
        "ftp://files.example.com/a.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///a.png",
        "https://user@files.example.com/a.png",
        "https://user:secret@files.example.com/a.png",
        "https://files.example.com:0/a.png",
        "https://files.example.com:99999/a.png",
        "https://files.example.com:x/a.png",
        "https://files.example.com\\@10.0.0.1/a.png",
        "https://files.example.com/a b.png",
        "https://files.example.com/\u05e9.png",
        "https://files.example.com/a.png\n",
        "https://files.example.com/" + "a" * 2048,
        "https://localhost/a.png",
        "https://db.localhost/a.png",
        "https://messaging/a.png",
        "https://metadata.google.internal/a.png",
        "https://printer.local/a.png",
        "https://127.0.0.1/a.png",
        "https://127.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f.0x0.0x0.0x1/a.png",
        "https://0177.0.0.1/a.png",
        "https://10.1.2.3/a.png",
        "https://172.16.0.1/a.png",
        "https://192.168.0.1/a.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/a.png",
        "https://0.0.0.0/a.png",
        "https://224.0.0.1/a.png",
        "https://255.255.255.255/a.png",
        "https://[::1]/a.png",
        "https://[::ffff:10.0.0.1]/a.png",
        "https://[2002:a00:1::]/a.png",
        "https://[fe80::1]/a.png",
        "https://[fd00::1]/a.png",
        "https://[::1/a.png",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """What the provider couldn't fetch, or shouldn't be asked to, is refused by its field."""
    with pytest.raises(InvalidInputError) as refused:
        check_media_address(url, "media_url")
    assert refused.value.field == "media_url"


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://127.0.0.1:9000/a.png", True),
        ("http://localhost:9000/a.png", True),
        ("https://[::1]/a.png", True),
        ("http://10.0.0.1/a.png", False),
        ("https://10.0.0.1/a.png", False),
        ("http://files.example.com/a.png", False),
        ("file://localhost/etc/passwd", False),
        ("http://user@localhost/a.png", False),
    ],
)
def test_this_machine_is_as_good_with_the_sandbox(url: str, taken: bool) -> None:
    """Only where it is allowed, and no other private host with it."""
    with pytest.raises(InvalidInputError):
        check_media_address(url, "media_url")
    if taken:
        check_media_address(url, "media_url", local=True)
    else:
        with pytest.raises(InvalidInputError):
            check_media_address(url, "media_url", local=True)


def test_types_and_sizes() -> None:
    """Pictures may have 5 MB, other files 16 MB, and what WhatsApp doesn't show none at all."""
    assert max_bytes("image/png") == 5 * 1024 * 1024
    assert max_bytes("application/pdf") == 16 * 1024 * 1024
    assert max_bytes("image/gif") is None
    assert max_bytes("application/octet-stream") is None
