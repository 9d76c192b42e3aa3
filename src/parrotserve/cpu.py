"""What this CPU can run, as far as the compiled extension can tell.

Parrot installs without a C++ compiler too; then the extension is missing, and the one notice here says so.
`python -m parrotserve.cpu` prints what was found.
"""

import functools
import logging

logger = logging.getLogger(__name__)

NOTICE = (
    "Parrot runs without its compiled extension ({reason}): everything works on the NumPy backend, but what "
    "this CPU can run is not known. To build it, install a C++17 compiler and then reinstall with "
    "`pip install --force-reinstall --no-deps` from the same source."
)


@functools.cache
def cpu_features() -> tuple[str, ...] | None:
    """The instruction-set extensions this process may use, sorted: `("avx", "avx2", "fma", ...)`.

    Names are those of Linux's /proc/cpuinfo on x86-64, and `neon`, `dotprod`, `bf16`, ... on Arm. None means
    that the extension is absent or does not load; a warning says so once per process.
    """
    try:
        from parrotserve._cpu import features
    except ImportError as error:
        logger.warning(NOTICE.format(reason=error))
        return None
    return tuple(features())


def main() -> None:
    """Print what this CPU can run; without the extension, only the notice on stderr."""
    features = cpu_features()
    if features is not None:
        print("compiled extension: yes; this CPU runs " + (" ".join(features) or "no extension known here"))


if __name__ == "__main__":
    main()
