import dataclasses

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.errors import DeclarationError
from parrotserve.switches import Switches

NAMES = [field.name for field in dataclasses.fields(Switches)]


def test_everything_is_on_by_default():
    assert all(getattr(ServiceConfig().switches, name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_turned_off_alone(name: str):
    switches = ServiceConfig(without=(name,)).switches
    assert [one for one in NAMES if not getattr(switches, one)] == [name]


def test_all_turns_everything_off():
    switches = Switches.without(["all"])
    assert not any(getattr(switches, name) for name in NAMES)
    assert switches.plain
    assert not Switches.without(["ahead", "sharing", "attention"]).plain


def test_they_are_set_by_the_environment():
    config = ServiceConfig.load(environment={"PARROT_WITHOUT": "prefix, groups"})
    assert (config.switches.prefix, config.switches.groups, config.switches.ahead) == (False, False, True)


def test_a_misspelt_one_is_refused_with_a_suggestion():
    with pytest.raises(DeclarationError, match=r"no switch 'prefixes'; did you mean prefix\?"):
        ServiceConfig(without=("prefixes",))
    with pytest.raises(DeclarationError, match="there are: ahead, "):
        ServiceConfig(without=("xyz",))
