"""`parrot version`: what is installed, and on what."""

import platform

from parrotserve import __version__


def version() -> None:
    """Print the version, and the facts about this machine that a bug report needs.

    \b
    Example:
      parrot version
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.cpu import cpu_features

    features = cpu_features()
    console = standard_output()
    console.print(version_line())
    console.print(f"Python {platform.python_version()} on {platform.platform()}")
    console.print(f"CPU {platform.machine()}: {_told(features)}")
    console.print(f"Backend {_backend()}")


def version_line() -> str:
    """`parrot 0.1.0`."""
    return f"parrot {__version__}"


def _told(features: tuple[str, ...] | None) -> str:
    if features is None:
        return "features unknown, the compiled extension is missing"
    return " ".join(features) or "no special features"


def _backend() -> str:
    """What `auto` chooses here, and why."""
    from parrotserve.engines.native.kernels import chosen_variant, measured_variants

    speeds = measured_variants()
    if not speeds:
        return "reference: the compiled extension is missing"
    measured = ", ".join(f"{variant} {speed:.0f}" for variant, speed in speeds.items())
    return f"kernels, variant {chosen_variant()} (GFLOP/s on one core: {measured})"
