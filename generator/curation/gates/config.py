"""What a build has to hold before readers get it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from generator.spec.canonical import FrozenModel

Share = Annotated[float, Field(ge=0.0, le=1.0)]
# ``auto``: the usual threshold where the gate can be measured, and no gate where it cannot.
AutoShare = Share | Literal["auto"] | None


class Reference(FrozenModel):
    """Real images to compare with: the ``source`` that the bundle was learned from, given as for training.

    ``test``: other real images for testing only, or ``test`` for that split of the source. ``copies``: share of images
    nearer to a training image than the 0.1% quantile of the held-out ones, at most. ``fidelity``: the Fréchet distance,
    at most so many times that of as many real training images. ``usefulness``: accuracy of a classifier trained on the
    build over that of one trained on the real images, at least. ``limit``: images of the build that are looked at.
    ``steps`` and ``seeds``: of the classifiers.
    """

    source: str = Field(min_length=1, max_length=1000)
    test: str | None = Field(default=None, min_length=1, max_length=1000)
    skip_bad: bool = False
    copies: Share | None = 0.01
    fidelity: float | None = Field(default=None, ge=1.0, le=1e6)
    usefulness: float | None = Field(default=None, gt=0.0, le=2.0)
    limit: int = Field(default=10_000, ge=100, le=100_000, strict=True)
    steps: int = Field(default=1400, ge=1, le=1_000_000, strict=True)
    seeds: int = Field(default=1, ge=1, le=100, strict=True)


class Gates(FrozenModel):
    """The gates of a build; ``None`` (in YAML ``null``) switches one off.

    ``auto`` is the usual threshold where the gate can be measured: ``copies`` 0.01, ``drift`` 0.1, ``confidence_drop``
    0.2. A gate with a number of its own that cannot be measured does not hold.

    ``counts``: every class has exactly the images that the recipe asks for. ``images``: so many in all, at least.
    ``balance``: the smallest class over the largest, of all classes of the bundle, at least. ``copies``: share of
    images that lie as near to a training image as the nearest 0.1% of held-out real ones do, by the bundle's sketch, at
    most. ``duplicates``: share of images that another one of the build equals, at most. ``near_duplicates``: of 1,000
    images, the share that lies as near to another one as copies do, at most. ``drift``: how unlike the last promoted
    build, from 0 (alike) to 1 (nothing in common), at most; with it no class that the last promoted build had may be
    missing. ``confidence_drop``: how much less the bundle's judge believes in the labels of a class than in the last
    promoted build, at most. ``reference``: measures beside real images. ``limit``: images that are looked at, spread
    over the build; 1,000 of them for drift. What is looked at has to be as it was committed, in any case.
    """

    counts: bool = True
    images: int | None = Field(default=None, ge=1, strict=True)
    balance: Share | None = None
    copies: AutoShare = "auto"
    duplicates: Share | None = 0.01
    near_duplicates: Share | None = None
    drift: AutoShare = "auto"
    confidence_drop: AutoShare = "auto"
    reference: Reference | None = None
    limit: int = Field(default=5000, ge=100, le=100_000, strict=True)
