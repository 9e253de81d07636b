"""The tokens around the soft tokens; known without torch or transformers."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.config import PromptConfig


@dataclass(frozen=True)
class Prompt:
    """The tokens before the soft tokens and those between them and the text, as ids."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    @property
    def as_config(self) -> PromptConfig | None:
        """What a configuration says that means these ids and nothing that is still to be made."""
        if not len(self):
            return None
        return PromptConfig(before=list(self.before), after=list(self.after))


NO_PROMPT = Prompt()
