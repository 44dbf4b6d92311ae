"""The gates that a build must pass before promotion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from generator.spec.canonical import FrozenModel

Share = Annotated[float, Field(ge=0.0, le=1.0)]
# ``auto``: the default threshold if the gate can be measured, otherwise no gate.
AutoShare = Share | Literal["auto"] | None


class Reference(FrozenModel):
    """Gates against reference images: the ``source`` that the bundle was trained on, given as for training.

    ``test``: a source of other real images for testing only, or ``test`` for that split of the source. ``copies``:
    maximum share of images nearer to a training image than the 0.1% quantile of the held-out ones. ``fidelity``:
    maximum Fréchet distance, as a multiple of that of as many real training images. ``usefulness``: minimum accuracy of
    a classifier trained on the build, relative to one trained on the real images. ``limit``: maximum number of images
    of the build that are measured. ``steps`` and ``seeds``: of the classifiers.
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
    """The gates of a build; ``None`` (in YAML ``null``) switches a gate off.

    ``auto`` is the default threshold if the gate can be measured: ``copies`` 0.01, ``drift`` 0.1, ``confidence_drop``
    0.2; otherwise the gate passes. A gate with an explicit threshold fails if it cannot be
    measured; ``drift`` and ``confidence_drop`` pass while no build has been promoted.

    ``counts``: every class must have exactly the number of images in the recipe. ``images``: minimum number of images
    in the build. ``balance``: minimum size of the smallest class over that of the largest, of all classes of the
    bundle. ``copies``: maximum share of images as near to a training image as the nearest 0.1% of held-out real ones
    are, by the bundle's copy index. ``duplicates``: maximum share of images equal to another image of the
    build. ``near_duplicates``: maximum share, of 1,000 images, that are as near to another one as copies are.
    ``drift``: maximum difference to the last promoted build, from 0 (same distribution) to 1 (disjoint); with it, every
    class of the last promoted build must be present. ``confidence_drop``: maximum drop of the judge's mean confidence
    in the labels of a class, compared with the last promoted build. ``reference``: gates against real images.
    ``signed``: a key that the settings of the judge trust must have signed the manifest; the build itself names none.
    ``limit``: maximum number of images that are read, spread over the build; 1,000 of them for drift. Shards that are
    read must be undamaged in any case.
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
    signed: bool = False
    limit: int = Field(default=5000, ge=100, le=100_000, strict=True)
