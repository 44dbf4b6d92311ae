"""One build before its gates: look at it, measure, say in words what holds, and keep the verdict beside the build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module

import numpy as np

from generator.curation.gates import checks
from generator.curation.gates.config import Gates
from generator.curation.gates.image_subset import ImageSubset, read_subset
from generator.curation.gates.verdict import VERDICT_KEY, Check, Verdict
from generator.datasets.builds import build_store, is_committed, read_manifest
from generator.datasets.promotion import DatasetState, read_state
from generator.errors import BuildError, BundleError, DatasetError, InputError, ObjectMissing
from generator.models.bundle import load_bundle
from generator.models.screening.config import NO_PASS_RATES
from generator.models.screening.data import NO_SCREENING, ScreeningData
from generator.production.provenance.manifest import Manifest
from generator.store import S3Settings
from generator.store.base import Store

OnStage = Callable[[str], None]


def evaluate_gates(
    dataset: Store,
    build_id: str,
    gates: Gates,
    *,
    logical_date: datetime | None = None,
    bundle: Store | None = None,
    s3: S3Settings | None = None,
    on_stage: OnStage = lambda _: None,
    at: datetime | None = None,
) -> Verdict:
    """Measure the committed build ``build_id`` of ``dataset`` (``<destination>/<name>``), and say whether it may pass.

    ``bundle``: the store seen from the bundle that made it, for copies and near duplicates. ``s3``: how a reference's
    dataset is opened. Drift is measured against the build that readers get now, or that they got before this one. The
    verdict goes to ``reports/verdict.json`` of the build, outside the commit, in place of an earlier one; so does what
    is measured beside a reference (``reports/quality.json``). Nothing is promoted here.

    A build whose shards are not as they were committed does not hold, nor does one that a gate with a number of its own
    cannot be measured on. Raises ``DatasetError`` for a build that is not committed, ``StoreError`` where the store
    does not answer: then judge again.
    """
    build = build_store(dataset, build_id)
    if not is_committed(build):
        raise DatasetError("build", f"a committed build of {dataset.url}", f"{build_id}, one that is not")
    manifest, against = read_manifest(build), _last_promoted(dataset, build_id)
    found, looked = list[Check | None](), None
    try:
        on_stage(f"looking at {build.url}")
        looked = read_subset(build, manifest, gates.limit)
    except (BuildError, ObjectMissing) as damage:
        found.append(Check(gate="readable", holds=False, words=f"damaged: {damage}"))
    found += _manifest_checks(manifest, gates)
    if looked is not None:
        found += _image_checks(dataset, manifest, looked, gates, bundle, against, on_stage)
        found += _reference_checks(build, looked, bundle, gates, s3, on_stage)
    told = tuple(check for check in found if check is not None)
    verdict = Verdict(
        dataset=dataset.url,
        build=build_id,
        logical_date=logical_date,
        against=against,
        holds=all(check.holds is not False for check in told),
        reasons=tuple(f"{check.gate}: {check.words}" for check in told if check.holds is False),
        checks=told,
        looked_at=0 if looked is None else len(looked),
        gates=gates,
        judged=at or datetime.now(UTC),
    )
    build.put(VERDICT_KEY, verdict.model_dump_json(indent=2).encode() + b"\n")
    return verdict


def _manifest_checks(manifest: Manifest, gates: Gates) -> list[Check | None]:
    """What the manifest alone says."""
    return [
        checks.check_counts(manifest) if gates.counts else None,
        None if gates.images is None else checks.check_images(manifest, gates.images),
        None if gates.balance is None else checks.check_balance(manifest, gates.balance),
    ]


def _image_checks(
    dataset: Store,
    manifest: Manifest,
    looked: ImageSubset,
    gates: Gates,
    bundle: Store | None,
    against: str | None,
    on_stage: OnStage,
) -> list[Check | None]:
    """What images and tables say."""
    on_stage("copies and duplicates")
    guards = _load_screening(manifest, bundle)
    passing = guards.pass_rates if guards.copy_index is not None else NO_PASS_RATES
    found = [
        checks.check_copies(looked, guards.copy_index, passing, gates.copies),
        checks.check_duplicates(looked, gates.duplicates),
        checks.check_near_duplicates(looked, guards.copy_index, gates.near_duplicates),
    ]
    if gates.drift is None and gates.confidence_drop is None:
        return found
    theirs = None
    if against is not None:
        on_stage(f"drift against build {against}")
        before = build_store(dataset, against)
        try:
            earlier = read_manifest(before)
            theirs = _remap_labels(read_subset(before, earlier, gates.limit), earlier.classes, manifest.classes)
        except (BuildError, ObjectMissing) as damage:
            words = f"the last promoted build, {against}, is damaged: {damage}"
            return [*found, Check(gate="drift", holds=False, words=words)]
        found.append(None if gates.drift is None else checks.check_classes(manifest, earlier))
    return [*found, *checks.check_against_promoted(looked, theirs, gates, manifest)]


def _reference_checks(
    build: Store, looked: ImageSubset, bundle: Store | None, gates: Gates, s3: S3Settings | None, on_stage: OnStage
) -> list[Check]:
    if gates.reference is None:
        return []
    try:
        if bundle is None:
            raise BundleError("bundle", "the bundle that made the build", "none", "push it to the store root")
        # By name, so that whoever gives no reference never imports torch.
        measured: list[Check] = import_module("generator.curation.gates.reference").check_reference(
            build, looked, bundle, gates.reference, s3=s3, on_stage=on_stage
        )
    except (InputError, BuildError) as wrong:
        return [Check(gate="reference", holds=False, words=f"not measured: {wrong}")]
    return measured


def _load_screening(manifest: Manifest, bundle: Store | None) -> ScreeningData:
    """The guards of the bundle, none where it is not there: then the gates say so."""
    if bundle is None:
        return NO_SCREENING
    try:
        return load_bundle(bundle, manifest.provenance.bundle).screening
    except BundleError:
        return NO_SCREENING


def _last_promoted(dataset: Store, build_id: str) -> str | None:
    """The build that readers get, or got before this one, and that is still there."""
    standing = read_state(dataset) or DatasetState()
    promoted = (each.build for each in (standing.current, *standing.previous) if each is not None)
    others = (each for each in promoted if each != build_id and each not in standing.being_deleted)
    return next((each for each in others if is_committed(build_store(dataset, each))), None)


def _remap_labels(looked: ImageSubset, theirs: tuple[str, ...], ours: tuple[str, ...]) -> ImageSubset:
    """With labels in the numbering of ``ours``; classes that are not among those come behind."""
    if theirs == ours or not theirs:
        return looked
    strangers = [name for name in theirs if name not in ours]
    order = np.array([(*ours, *strangers).index(name) for name in theirs], dtype=np.int64)
    return replace(looked, labels_N=order[looked.labels_N], labels_M=order[looked.labels_M])
