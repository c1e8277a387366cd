"""How fast bytes move: the mean of the last seconds, so that the number can be read."""

from collections import deque

_WINDOW_S = 5.0
_SAMPLE_S = 0.2


class Speed:
    """Fed with a growing count of bytes; reads no clock itself."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._last_bytes = 0

    def add(self, done_bytes: int, at_s: float) -> None:
        """Note the count at a moment; moments closer than a fifth of a second count as one."""
        self._last_bytes = done_bytes
        if not self._samples or at_s - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((at_s, done_bytes))
        while len(self._samples) > 1 and at_s - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()

    def bytes_per_s(self, now_s: float) -> float | None:
        """The mean up to now, so a copy that stalls slows down to 0; None before it is known."""
        if not self._samples or now_s - self._samples[0][0] < _SAMPLE_S:
            return None
        since_s, first_bytes = self._samples[0]
        return max(0.0, (self._last_bytes - first_bytes) / (now_s - since_s))
