"""Which addresses of files are taken."""

import pytest

from services.common.errors import InvalidInputError
from services.messaging.domain.media_address import checked_media


@pytest.mark.parametrize(
    ("url", "content_type"),
    [
        ("https://files.example.com/plan.pdf", "application/pdf"),
        ("https://files.example.com/a/b/PHOTO.JPG?width=100#top", "image/jpeg"),
        ("https://files.example.com:8443/voice%2Eogg", "audio/ogg"),
        ("https://files.example.com/download?id=17", ""),
        ("https://files.example.com", ""),
        ("https://xn--4dbrk0ce.example/a.png", "image/png"),
        ("https://93.184.215.14/a.png", "image/png"),
        ("https://[2606:2800:220:1::1]/a.png", "image/png"),
        ("HTTPS://files.example.com./a.png", "image/png"),
    ],
)
def test_public_files_are_taken(url: str, content_type: str) -> None:
    """A file on the public internet is taken, with the type that its name tells."""
    assert checked_media(url, "media_url") == content_type


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
        "https://files.example.com/setup.exe",
        "https://files.example.com/page.html",
        "https://files.example.com/moving.gif",
        "https://files.example.com/film.mov",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """What the provider couldn't fetch, or shouldn't be asked to, is refused by its field."""
    with pytest.raises(InvalidInputError) as refused:
        checked_media(url, "media_url")
    assert refused.value.field == "media_url"
