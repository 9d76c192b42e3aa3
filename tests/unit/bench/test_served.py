"""Services that are measured have nothing of who measures them."""

from parrotserve.bench.served import own_environment
from parrotserve.config import ServiceConfig

USERS = {"PARROT_WITHOUT": "all", "PARROT_WEIGHTS": "int4", "PARROT_MAX_LEASE_SECONDS": "7", "PARROT_PEERS": "/peers"}


def test_settings_stay_behind_and_where_models_are_does_not():
    kept = {"PATH": "/bin", "PARROT_CACHE": "/cache", "PARROT_INDEX_URL": "http://index"}
    own = own_environment({**USERS, **kept, "PARROT_CONFIG": "/home/user/parrot.toml"})
    assert {name: own[name] for name in kept} == kept
    assert not USERS.keys() & own.keys()
    assert ServiceConfig.load(environment=own) == ServiceConfig()
