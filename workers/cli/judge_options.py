"""The judge that train and import were asked for, over the one that is recommended for the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.cli.progress import progress_lines

if TYPE_CHECKING:
    from generator.models.autoencoders.settings import TrainSettings
    from generator.models.screening.config import JudgeSettings
    from generator.sources import Source


@dataclass(frozen=True)
class JudgeOptions:
    """``members``: number of classifiers, 0 for no judge. ``None``: as recommended."""

    members: int = 1
    width: int | None = None
    steps: int | None = None
    mirrored: bool | None = None

    def check(self) -> None:
        """Raises ``SpecError`` for what no judge has, before anything is read."""
        from generator.models.screening.config import default_judge

        self._over(default_judge(32))

    def choose(self, images: Source, settings: TrainSettings, *, quiet: bool) -> JudgeSettings | None:
        """The settings of the judge for ``images``; ``None`` for no judge."""
        from generator.models.learning import recommended_judge

        if self.members == 0:
            return None
        with progress_lines("choosing the judge", None, quiet=quiet):
            return self._over(recommended_judge(images, settings, mirrored=self.mirrored))

    def _over(self, recommended: JudgeSettings) -> JudgeSettings | None:
        from generator.errors import SpecError
        from generator.models.screening.config import JudgeSettings
        from generator.spec.canonical import validate

        if self.members == 0:
            return None
        document = recommended.model_dump() | {"members": self.members}
        document |= {} if self.width is None else {"width": self.width}
        document["budget"] |= {} if self.steps is None else {"steps": self.steps}
        return validate(JudgeSettings, document, field="judge", error=SpecError)
