"""The random numbers with which tokens are drawn: one for each (seed, position).

So a token depends neither on the batch around it nor on what was generated elsewhere, and a rerun continues exactly.
The numbers come from SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): the
seed is mixed once, and position p takes output p of the generator that starts there; its top 53 bits are the uniform.
"""

_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides token `position` of an output with this seed."""
    return (_mix(start_of(seed) + (position + 1) * _GAMMA) >> 11) * 2.0**-53


def start_of(seed: int) -> int:
    """The start state of the generator of an output's numbers; all that a backend needs of the seed."""
    return _mix(seed + _GAMMA)


def _mix(word: int) -> int:
    word &= _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
