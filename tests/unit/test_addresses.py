"""No address is shown with what it says of who asks."""

import pytest

from parrotserve.addresses import without_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host:8443/simple?a=b", "https://host:8443/simple?a=b"),
        ("https://token@host/simple", "https://host/simple"),
        ("user:secret@host/simple", "host/simple"),
        ("/etc/par@rot:1.toml", "/etc/par@rot:1.toml"),
        ("https://host/par@rot", "https://host/par@rot"),
        ("https://user:sec#ret@host", "host"),
        ("https://user:sec/ret@host", "host"),
        ("https://user:secret@host:99999", "host:99999"),
        ("https://user:secret@[bad", "[bad"),
        ("https://[bad", "https://[bad"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str):
    assert without_credentials(url) == shown
