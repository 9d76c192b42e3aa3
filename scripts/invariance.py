"""Shows that no text depends on how the reference backend computes it, except for near ties, which it lists.

    python scripts/invariance.py

Runs prompts of all lengths greedily in each manner: prefill chunks of 16, 64 and 512 tokens; alone, in a batch, and
after a shared prefix; with and without grouped attention; with and without segments that arrive late. Each result is
compared with that of transformers (tests/data/golden/greedy.json), and thereby with all others.
"""

import sys
import time
from collections.abc import Iterator

from parity import Difference, Golden, Manner, Setting, compare, excerpt, read_golden, reference_engine

from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import DEFAULT_MODEL, resolve

CHUNKS = (16, 64, 512)
EVERY, TOKENS = 3, 16


def sample() -> Golden:
    """Every third prompt in order of length, including the shortest and the longest."""
    golden = read_golden()
    by_length = sorted(range(len(golden["prompts"])), key=lambda prompt: len(golden["prompts"][prompt]))
    return excerpt(golden, by_length[::EVERY], TOKENS)


def differences(files: ModelFiles, chunk: int) -> Iterator[tuple[Manner, Setting, list[Difference]]]:
    """The differences in every manner with prefill chunks of this size."""
    golden = sample()
    for group in (True, False):
        core = reference_engine(files, Manner(prefill_chunk=chunk, group=group))
        for late in (False, True):
            manner = Manner(prefill_chunk=chunk, group=group, late=late)
            for setting in Setting:
                if group or setting is not Setting.ALONE:  # a prompt that runs alone has nothing to be grouped with
                    yield manner, setting, compare(core, golden, setting, late=late)


def main() -> None:
    files = resolve(DEFAULT_MODEL)
    prompts = len(sample()["prompts"])
    failed = False
    for chunk in CHUNKS:
        began = time.monotonic()
        for manner, setting, found in differences(files, chunk):
            print(f"{prompts} prompts, {manner}, {setting}: {len(found)} differences", flush=True)
            for difference in found:
                print(f"  {difference}")
            failed = failed or not all(difference.allowed for difference in found)
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
