"""Environment variables by which Kubernetes tells pods where the services of their namespace are.

They are named after the services: for one called `parrot`, or `parrot-web`, they begin with `PARROT_`, as our settings.
"""

import re
from collections.abc import Mapping

_ALWAYS_THERE = "KUBERNETES_SERVICE_HOST"
_LINK = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


def is_service_link(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether Kubernetes has set a variable to tell where a service is. Always False outside of pods."""
    if _ALWAYS_THERE not in environment:
        return False
    if _LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _ADDRESS.fullmatch(environment[variable]) is not None
