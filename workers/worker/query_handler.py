"""Answers queries: previews, images made again, drafts that need torch (``workers.jobs.queries``)."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from generator.drafts import parse_draft, resolve_draft
from generator.errors import LatentmillError, SpecError, WorkerUnavailable
from generator.models.bundle import bundle_store
from generator.production.commit import locate_build, read_build_location
from generator.production.images import extension
from generator.production.pipeline.refusals import explain_draws
from generator.production.provenance.sample_table import read_rows
from generator.production.shards import read_samples
from generator.spec.canonical import translate_error
from generator.spec.plan import Plan, ShardPlan
from generator.store import open_store
from workers.jobs.pool import Pool
from workers.jobs.preview import MAX_IMAGES_BYTES, Preview, PreviewImage
from workers.jobs.queries import (
    QUESTIONS,
    Diagnosed,
    DiagnoseQuestion,
    ExplainQuestion,
    PreviewQuestion,
    Question,
    RefusalReason,
    RefusedDraw,
    RefusedDraws,
    RemadeImages,
    RemakeQuestion,
    ResolveQuestion,
)
from workers.worker.decoder_cache import DecoderCache

log = logging.getLogger(__name__)


@dataclass
class QueryHandler:
    """Answers the queries of one worker process, with its resident decoders. Decoders are never compiled for them."""

    pool: Pool
    decoders: DecoderCache

    def serve(self) -> str | None:
        """Answer one query; returns a line for the log, or ``None`` if none waits. Raises ``BrokerUnavailable``."""
        question = self.pool.queries.take()
        if question is None:
            return None
        started = time.perf_counter()
        kind, answer = self._answer(question.document)
        self.pool.queries.answer(question, answer)
        outcome = answer["error"]["error"] if "error" in answer else "done"
        return f"query {kind}: {outcome} in {time.perf_counter() - started:.2f} s"

    def _answer(self, document: Any) -> tuple[str, dict[str, Any]]:
        try:
            asked = QUESTIONS.validate_python(document)
        except ValidationError as invalid:
            return "unknown", {"error": translate_error(invalid, field="query", error=SpecError, known=()).facts()}
        try:
            return asked.kind, {"result": self._result(asked)}
        except LatentmillError as error:
            return asked.kind, {"error": error.facts()}
        except Exception:
            log.exception("a query failed")
            got = "an internal error"
            return asked.kind, {
                "error": WorkerUnavailable("worker", "an answer", got, "the worker's log has more").facts()
            }

    def _result(self, asked: Question) -> Any:
        if isinstance(asked, PreviewQuestion):
            return self._preview(asked).model_dump(mode="json")
        if isinstance(asked, RemakeQuestion):
            return RemadeImages(images=tuple(self._remake(asked))).model_dump(mode="json")
        if isinstance(asked, ExplainQuestion):
            return self._explain(asked).model_dump(mode="json")
        if isinstance(asked, DiagnoseQuestion):
            return self._diagnose(asked).model_dump(mode="json")
        return self._resolve(asked)

    def _preview(self, asked: PreviewQuestion) -> Preview:
        self.pool.settings.check_allowed(asked.spec.order.destination)
        location = locate_build(asked.spec, self.pool.settings.s3)
        maker, recipe = self.decoders.eager_maker(location), asked.spec.recipe
        whole = Plan(recipe).shard(0)
        count = min(asked.count, len(whole))
        first = ShardPlan(0, whole.indices_N[:count], whole.labels_N[:count])
        made = maker.make(first, location.name)
        rows, name = read_rows(made.table, field="preview"), extension(recipe.image.format)
        files = (files[name] for _, files in read_samples(made.archive, field="preview"))
        images = [_preview_image(row, data) for row, data in zip(rows, _that_fit(files), strict=False)]
        return Preview(
            format=recipe.image.format,
            classes=recipe.classes,
            recipe_version=recipe.recipe_version,
            images=tuple(images),
            refused=made.receipt.refused,
        )

    def _remake(self, asked: RemakeQuestion) -> Iterable[bytes]:
        url = self.pool.settings.check_allowed(asked.url)
        location = read_build_location(open_store(url, self.pool.settings.s3), asked.name)
        maker, classes = self.decoders.eager_maker(location), len(location.recipe.counts)
        for sample in asked.samples:
            if sample.index >= location.recipe.total or sample.label >= classes:
                got = f"sample {sample.index} with label {sample.label}"
                raise SpecError("samples", f"samples of this build: below {location.recipe.total}", got)
        return _that_fit(maker.remake(each.index, each.attempt, each.label) for each in asked.samples)

    def _explain(self, asked: ExplainQuestion) -> RefusedDraws:
        url = self.pool.settings.check_allowed(asked.url)
        location = read_build_location(open_store(url, self.pool.settings.s3), asked.name)
        recipe = location.recipe
        if (
            asked.index >= recipe.total
            or asked.label >= len(recipe.counts)
            or max(asked.attempts) >= recipe.max_attempts
        ):
            got = f"attempt {max(asked.attempts)} of sample {asked.index} with label {asked.label}"
            raise SpecError("attempts", "draws of a sample of this build", got)
        draws = explain_draws(self.decoders.eager_maker(location), asked.index, list(asked.attempts), asked.label)
        return RefusedDraws(
            draws=tuple(
                RefusedDraw(
                    attempt=draw.attempt,
                    cluster=draw.cluster,
                    data=draw.data,
                    reasons=tuple(RefusalReason(**asdict(reason)) for reason in draw.reasons),
                )
                for draw in draws
            )
        )

    def _diagnose(self, asked: DiagnoseQuestion) -> Diagnosed:
        # Imported late: they import scikit-learn and matplotlib, which nothing else in a worker needs.
        from generator.curation.diagnosis.diagnose import diagnose
        from generator.curation.diagnosis.pictures import load_picture_inputs, picture_files
        from generator.curation.diagnosis.words import report_of

        bundle = self.decoders.bundle_cache.load(asked.bundle, self.decoders.roots)
        store = bundle_store(self.pool.root, asked.bundle)
        diagnosis = diagnose(store, bundle, quick=asked.quick)
        pictures = picture_files(load_picture_inputs(store, bundle, quick=asked.quick))
        report = report_of(diagnosis, asked.bundle, quick=asked.quick, pictures=tuple(pictures))
        return Diagnosed(report=report, pictures=pictures)

    def _resolve(self, asked: ResolveQuestion) -> dict[str, Any]:
        draft = deepcopy(asked.draft)
        with tempfile.TemporaryDirectory(prefix="latentmill-query-") as folder:
            names = _store_images(Path(folder), asked.images)
            for reference in (draft.get("draw"), *_ends(draft.get("draw"))):
                if isinstance(reference, dict) and "image" in reference:
                    reference["image"] = names.get(str(reference["image"]), "")
            parsed = parse_draft(draft)
            self.pool.settings.check_allowed(parsed.destination)
            try:
                spec, _ = resolve_draft(parsed, self.pool.root, self.pool.settings.s3, day=asked.day)
            except LatentmillError as wrong:
                raise type(wrong)(*(str(each).replace(folder, "uploaded") for each in wrong.args)) from wrong
        return spec.model_dump(mode="json")


def _preview_image(row: dict[str, Any], data: bytes) -> PreviewImage:
    known = ("index", "attempt", "label", "cluster", "log_density", "label_confidence")
    return PreviewImage(**{name: row.get(name) for name in known}, class_name=row.get("class"), data=data)


def _that_fit(files: Iterable[bytes]) -> Iterable[bytes]:
    """The first files that together have at most ``MAX_IMAGES_BYTES``."""
    total = 0
    for data in files:
        total += len(data)
        if total > MAX_IMAGES_BYTES:
            return
        yield data


def _store_images(folder: Path, images: dict[str, bytes]) -> dict[str, str]:
    """Write uploaded images to files; returns their paths by the names that the draft has for them."""
    paths = {}
    for number, (name, data) in enumerate(images.items()):
        path = folder / f"image-{number}"
        path.write_bytes(data)
        paths[name] = str(path)
    return paths


def _ends(draw: Any) -> tuple[Any, ...]:
    return tuple(draw.get(name) for name in ("start", "end")) if isinstance(draw, dict) else ()
