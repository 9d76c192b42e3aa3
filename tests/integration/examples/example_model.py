"""A model that says what a test wants, for the examples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@dataclass
class Model:
    """Answers by the first cue that occurs in what is new of a prompt; `prompts` are in the order of the answers."""

    answers: dict[str, str | Callable[[str], str]] = field(default_factory=dict)
    prompts: list[str] = field(default_factory=list)

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        for cue, answer in self.answers.items():
            if cue in prompt:
                return answer(prompt) if callable(answer) else answer
        raise AssertionError(f"unexpected prompt: {prompt}")

    def asked(self, cue: str) -> list[str]:
        """The prompts with this text in them."""
        return [prompt for prompt in self.prompts if cue in prompt]
