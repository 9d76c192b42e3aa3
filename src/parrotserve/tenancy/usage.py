"""What somebody used: sums of what engines report. Pure."""

from dataclasses import dataclass

from parrotserve import sampling


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over runs of requests that ended."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Number of prompt tokens whose KV was already in the cache."""
    output_tokens: int = 0
    seconds: float = 0.0
    """Engine time."""

    def plus(self, run: sampling.Usage) -> "Usage":
        """The sum with one more run."""
        return Usage(
            self.requests + 1,
            self.prompt_tokens + run.prompt_tokens,
            self.cached_tokens + run.cached_tokens,
            self.output_tokens + run.output_tokens,
            self.seconds + run.engine_seconds,
        )

    def merged(self, other: "Usage") -> "Usage":
        """The sum of both."""
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
        )
