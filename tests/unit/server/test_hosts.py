"""By which names an open service is asked: its own machine's, and nobody else's."""

import pytest

from parrotserve.errors import Forbidden
from parrotserve.server.hosts import check_host

OWN = (
    "localhost",
    "LocalHost:8000",
    "localhost.:8000",
    "parrot.localhost",
    "127.0.0.1:8000",
    "127.9.9.9",
    "[::1]:8000",
    "[::1]",
    "",
)
FOREIGN = (
    "attacker.example:8127",
    "evil.com",
    "localhost.evil.com",
    "notlocalhost",
    "127.0.0.1.nip.io:8000",
    "192.168.1.5:8000",
    "0.0.0.0:8000",
    "[::1].evil.com.",
    "[fe80::1]:8000",
    ".localhost.evil.com",
    ":8000",
)


@pytest.mark.parametrize("host", OWN)
def test_names_of_the_machine_itself_are_answered(host: str):
    check_host(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_refused_with_what_to_do(host: str):
    with pytest.raises(Forbidden, match=r"127\.0\.0\.1 or localhost, .*parrot key create") as refused:
        check_host(host)
    assert repr(host) in refused.value.message


def test_a_long_name_is_not_repeated_whole():
    with pytest.raises(Forbidden) as refused:
        check_host("x" * 10_000)
    assert len(refused.value.message) < 500
