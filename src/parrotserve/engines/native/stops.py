"""Finds stop strings in a growing text, and how much of the text's end may be the beginning of one."""


class StopSearch:
    """Searches for several stop strings, character by character.

    Runs Knuth, Morris and Pratt's search (1977) for each of them: every new character is looked at once, in time
    logarithmic in the length of the longest stop string. A stop string's tables are built only as far as it has
    matched.
    """

    __slots__ = ("_borders", "_falls", "_first", "_length", "_matched", "_stops")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._first: dict[str, list[int]] = {}
        """Indices of the stop strings, by their first character."""
        for index, stop in enumerate(stops):
            self._first.setdefault(stop[0], []).append(index)
        self._matched: dict[int, int] = {}
        """By stop string: the length of its longest beginning that the text ends with; from 1 to one less than all."""
        self._borders = [[0, 0] for _ in stops]
        """By stop string, for its first n characters: the length of the longest shorter beginning that they end
        with."""
        self._falls = [[0, 0] for _ in stops]
        """The same, but only beginnings that continue with a different character than these n do: after a mismatch, it
        is useless to try the same character again."""
        self._length = 0

    @property
    def held(self) -> int:
        """Number of characters at the end of the text that may be the beginning of a stop string."""
        return max(self._matched.values(), default=0)

    def push(self, text: str) -> int | None:
        """Takes in more of the text. If stop strings end in it, returns the offset in the whole text at which the
        earliest of them begins."""
        starts: list[int] = []
        for character in text:
            self._length += 1
            starting = self._first.get(character, ())
            if self._matched or starting:
                before, self._matched = self._matched, {}
                for index, length in before.items():
                    self._step(index, length, character, starts)
                for index in starting:
                    if index not in before:
                        self._step(index, 0, character, starts)
        return min(starts, default=None)

    def _step(self, index: int, length: int, character: str, starts: list[int]) -> None:
        stop, borders, falls = self._stops[index], self._borders[index], self._falls[index]
        while length and stop[length] != character:
            length = falls[length]
        if stop[length] != character:
            return
        length += 1
        if length == len(borders):
            _extend(stop, borders, falls)
        if length == len(stop):
            starts.append(self._length - length)
            length = borders[length]
        if length:
            self._matched[index] = length


def _extend(stop: str, borders: list[int], falls: list[int]) -> None:
    """Adds the next entry to both tables."""
    last, end = stop[len(borders) - 1], len(borders)
    length = borders[-1]
    while length and stop[length] != last:
        length = falls[length]
    border = length + (stop[length] == last)
    borders.append(border)
    falls.append(falls[border] if end < len(stop) and stop[border] == stop[end] else border)
