"""Stop strings looked for in a text as it grows: where one ended, and with how much of the end one may begin."""


class StopSearch:
    """How far each stop string is matched by the end of the text so far.

    Knuth, Morris and Pratt's search (1977) for each of them, carried on from character to character: what comes anew is
    looked at once, and in a time that grows with the logarithm of the longest stop string. Their tables are made as far
    as something matched.
    """

    __slots__ = ("_borders", "_falls", "_first", "_length", "_matched", "_stops")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._first: dict[str, list[int]] = {}
        """Which stop strings begin with a character."""
        for index, stop in enumerate(stops):
            self._first.setdefault(stop[0], []).append(index)
        self._matched: dict[int, int] = {}
        """The length of the longest beginning, less than all, with which the text ends; of those that have any."""
        self._borders = [[0, 0] for _ in stops]
        """For beginnings of each length: that of the longest shorter one with which they end."""
        self._falls = [[0, 0] for _ in stops]
        """The same, of those after which another character comes: to which to fall back from one that does not."""
        self._length = 0

    @property
    def held(self) -> int:
        """Length of the longest end of the text with which a stop string may begin."""
        return max(self._matched.values(), default=0)

    def push(self, text: str) -> int | None:
        """The text goes on. Where in all of it the earliest stop string begins that ends in this part, if one does."""
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
