"""Evaluate the gates of one build and store the verdict beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module

import numpy as np

from generator.curation.gates import checks
from generator.curation.gates.config import Gates
from generator.curation.gates.image_subset import ImageSubset, read_subset
from generator.curation.gates.signed import check_signature
from generator.curation.gates.verdict import VERDICT_KEY, Check, Verdict
from generator.datasets.builds import build_store, is_committed, read_manifest
from generator.datasets.promotion import DatasetState, read_state
from generator.errors import BuildError, BundleError, DatasetError, InputError, ObjectMissing
from generator.models.bundle import load_bundle
from generator.models.screening.config import NO_PASS_RATES
from generator.models.screening.data import NO_SCREENING, ScreeningData
from generator.production.provenance.manifest import Manifest
from generator.signatures import PublicKey
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
    trusted: Sequence[PublicKey] = (),
) -> Verdict:
    """Evaluate the gates of the committed build ``build_id`` of ``dataset`` (``<destination>/<name>``).

    ``bundle``: a store rooted at the bundle that made the build, for copies and near duplicates. ``s3``: S3 settings to
    open the dataset for the reference gates. Drift is measured against the build that readers get now or, if that is
    this build, against the one promoted before it. ``trusted``: keys of which one must have signed the build, for the
    gate ``signed``. The verdict is written to ``reports/verdict.json`` of the build,
    outside the commit, and replaces an earlier one; so does the report of the reference gates
    (``reports/quality.json``). Nothing is promoted here.

    The verdict fails if a shard that was read is damaged, or if a gate with an explicit threshold cannot be measured.
    Raises ``DatasetError`` if the build is not committed, ``StoreError`` if the store does not answer; then the
    evaluation can be repeated.
    """
    build = build_store(dataset, build_id)
    if not is_committed(build):
        raise DatasetError("build", f"a committed build of {dataset.url}", f"{build_id}, which is not committed")
    manifest, against = read_manifest(build), _last_promoted(dataset, build_id)
    results, subset = list[Check | None](), None
    try:
        on_stage(f"reading {build.url}")
        subset = read_subset(build, manifest, gates.limit)
    except (BuildError, ObjectMissing) as damage:
        results.append(Check(gate="readable", holds=False, words=f"damaged: {damage}"))
    results += _manifest_checks(manifest, gates)
    results += [check_signature(build, manifest, trusted)] if gates.signed else []
    if subset is not None:
        results += _image_checks(dataset, manifest, subset, gates, bundle, against, on_stage)
        results += _reference_checks(build, subset, bundle, gates, s3, on_stage)
    measured_checks = tuple(check for check in results if check is not None)
    verdict = Verdict(
        dataset=dataset.url,
        build=build_id,
        logical_date=logical_date,
        against=against,
        holds=all(check.holds is not False for check in measured_checks),
        reasons=tuple(f"{check.gate}: {check.words}" for check in measured_checks if check.holds is False),
        checks=measured_checks,
        looked_at=0 if subset is None else len(subset),
        gates=gates,
        judged=at or datetime.now(UTC),
    )
    build.put(VERDICT_KEY, verdict.model_dump_json(indent=2).encode() + b"\n")
    return verdict


def _manifest_checks(manifest: Manifest, gates: Gates) -> list[Check | None]:
    """The gates that need only the manifest."""
    return [
        checks.check_counts(manifest) if gates.counts else None,
        None if gates.images is None else checks.check_images(manifest, gates.images),
        None if gates.balance is None else checks.check_balance(manifest, gates.balance),
    ]


def _image_checks(
    dataset: Store,
    manifest: Manifest,
    subset: ImageSubset,
    gates: Gates,
    bundle: Store | None,
    against: str | None,
    on_stage: OnStage,
) -> list[Check | None]:
    """The gates that need images and table rows."""
    on_stage("copies and duplicates")
    screening = _load_screening(manifest, bundle)
    pass_rates = screening.pass_rates if screening.copy_index is not None else NO_PASS_RATES
    results = [
        checks.check_copies(subset, screening.copy_index, pass_rates, gates.copies),
        checks.check_duplicates(subset, gates.duplicates),
        checks.check_near_duplicates(subset, screening.copy_index, gates.near_duplicates),
    ]
    if gates.drift is None and gates.confidence_drop is None:
        return results
    promoted = None
    if against is not None:
        on_stage(f"drift against build {against}")
        promoted_build = build_store(dataset, against)
        try:
            promoted_manifest = read_manifest(promoted_build)
            promoted = _remap_labels(
                read_subset(promoted_build, promoted_manifest, gates.limit), promoted_manifest.classes, manifest.classes
            )
        except (BuildError, ObjectMissing) as damage:
            words = f"the last promoted build, {against}, is damaged: {damage}"
            return [*results, Check(gate="confidence" if gates.drift is None else "drift", holds=False, words=words)]
        results.append(None if gates.drift is None else checks.check_classes(manifest, promoted_manifest))
    return [*results, *checks.check_against_promoted(subset, promoted, gates, manifest)]


def _reference_checks(
    build: Store, subset: ImageSubset, bundle: Store | None, gates: Gates, s3: S3Settings | None, on_stage: OnStage
) -> list[Check]:
    if gates.reference is None:
        return []
    try:
        if bundle is None:
            raise BundleError("bundle", "the bundle that made the build", "none", "push it to the store root")
        # Imported lazily: only the reference gates need torch.
        measured: list[Check] = import_module("generator.curation.gates.reference").check_reference(
            build, subset, bundle, gates.reference, s3=s3, on_stage=on_stage
        )
    except (InputError, BuildError) as wrong:
        return [Check(gate="reference", holds=False, words=f"not measured: {wrong}")]
    return measured


def _load_screening(manifest: Manifest, bundle: Store | None) -> ScreeningData:
    """The screening data of the bundle; empty if the bundle is missing, which the gates then report."""
    if bundle is None:
        return NO_SCREENING
    try:
        return load_bundle(bundle, manifest.provenance.bundle).screening
    except BundleError:
        return NO_SCREENING


def _last_promoted(dataset: Store, build_id: str) -> str | None:
    """The last promoted build other than ``build_id`` that still exists."""
    state = read_state(dataset) or DatasetState()
    promoted = (each.build for each in (state.current, *state.previous) if each is not None)
    others = (each for each in promoted if each != build_id and each not in state.being_deleted)
    return next((each for each in others if is_committed(build_store(dataset, each))), None)


def _remap_labels(subset: ImageSubset, classes: tuple[str, ...], target: tuple[str, ...]) -> ImageSubset:
    """Change label numbers from ``classes`` to ``target``. Classes missing from ``target`` get numbers after it."""
    if classes == target or not classes:
        return subset
    unknown = [name for name in classes if name not in target]
    order = np.array([(*target, *unknown).index(name) for name in classes], dtype=np.int64)
    return replace(subset, labels_N=order[subset.labels_N], labels_M=order[subset.labels_M])
