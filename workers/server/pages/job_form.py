"""The form for new jobs: fields or text, a look at the first images, and what is wrong at its field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.drafts import parse_mapping
from generator.errors import LatentmillError, SpecError
from generator.production.commit import read_build_location
from generator.spec.canonical import translate_errors
from generator.spec.recipe import JobSpec, Recipe, build_prefix
from generator.store import is_remote, open_store
from workers.jobs.preview import Preview
from workers.jobs.queries import preview
from workers.server.audited import audited
from workers.server.bundles import tenant_channels
from workers.server.callers import Caller, require
from workers.server.context import ServerContext, context_of
from workers.server.decisions import submit
from workers.server.jobs import find_job
from workers.server.pages.bundle_choices import bundle_choices, chosen_bundle
from workers.server.pages.clone_draft import draft_of_recipe
from workers.server.pages.form_answers import (
    CHANNEL,
    KEPT,
    MAX_CLASSES,
    Answers,
    answers_of,
    draft_of,
    place_errors,
    text_of,
)
from workers.server.pages.form_fields import FormField, all_fields, common_fields, more_fields
from workers.server.pages.inline_errors import shown_error
from workers.server.pages.pictures import data_url
from workers.server.pages.readers import warning_of_draft
from workers.server.pages.rendering import render
from workers.server.problems import Problem
from workers.server.specs import DraftBody, narrow, parse_body, spec_facts

_PREVIEW_IMAGES, _PREVIEW_SECONDS = 24, 20.0
_MAX_TEXT = 200_000
_MAX_FIELDS = 400  # of the form: two for each of 100 classes, and those of the draft
_FIRST_COUNT, _FIRST_NAME = "1000", "images"

Submitter = Annotated[Caller, Depends(require("submitter"))]
SpecText = Annotated[str, Query(max_length=_MAX_TEXT)]

router = APIRouter(include_in_schema=False)


async def _form_values(request: Request) -> Answers:
    """The fields of the form as they were sent, without files."""
    sent = await request.form(max_files=1, max_fields=_MAX_FIELDS)
    return {name: value for name, value in sent.multi_items() if isinstance(value, str)}


FormValues = Annotated[Answers, Depends(_form_values)]


@dataclass
class _Asked:
    """A job as the form states it. ``body``: what is submitted, ``None`` while something is wrong with it."""

    draft: dict[str, Any]
    answers: Answers
    classes: Sequence[str]
    text: str
    body: DraftBody | JobSpec | None = None
    errors: list[LatentmillError] = field(default_factory=list)
    by_text: bool = False
    note: str = ""

    def draft_by_class(self) -> list[str]:
        """The fields of classes that are filled."""
        return [name for name, value in self.answers.items() if "-of-" in name and value]


@router.get("/jobs/new")
def new_job(
    request: Request,
    caller: Submitter,
    text: SpecText = "",
    bundle: Annotated[str, Query(max_length=100)] = "",
    channel: Annotated[str, Query(max_length=100)] = "",
    job: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """The form: empty, for a bundle or a channel, like another job, or with a text."""
    context = context_of(request)
    if text:
        return _show(request, caller, _by_text(context, caller, text))
    if job:
        return _show(request, caller, _like_job(context, caller, job))
    return _show(request, caller, _fresh(context, caller, bundle, channel))


@router.post("/jobs/new")
def submit_job(request: Request, caller: Submitter, sent: FormValues) -> Response:
    """Submit the job of the form, look at its first images, or show its text and the classes of its bundle."""
    context = context_of(request)
    asked = (
        _by_fields(context, caller, sent)
        if sent.get("by") == "fields"
        else _by_text(context, caller, sent.get("text", ""))
    )
    if sent.get("update"):
        asked.errors = []
        return _show(request, caller, asked)
    try:
        if asked.body is None:
            raise asked.errors[0]
        if sent.get("look"):
            with audited(caller, "preview", **spec_facts(asked.body)):
                spec = narrow(context, caller, asked.body)
                made = preview(context.pool, spec, _PREVIEW_IMAGES, _PREVIEW_SECONDS)
            return _show(request, caller, asked, made=made)
        with audited(caller, "submit job", **spec_facts(asked.body)) as change:
            status = submit(context, narrow(context, caller, asked.body), change)
    except (LatentmillError, Problem) as wrong:
        code, error = shown_error(request, caller, wrong)
        asked.errors = asked.errors or [error]
        return _show(request, caller, asked, status=code)
    return RedirectResponse(f"/jobs/{status.job}", 303)


@router.post("/jobs/new/text")
def show_text(request: Request, caller: Submitter, sent: FormValues) -> Response:
    """The text of the job that the fields state, and the classes of its bundle if that is another one now."""
    context = context_of(request)
    asked = _by_fields(context, caller, sent)
    return render(request, "job_form_parts.html", **_values(context, caller, asked), known=sent.get("classes_of", ""))


def _fresh(context: ServerContext, caller: Caller, bundle: str, channel: str) -> _Asked:
    if not bundle and not channel:
        channel = next((each.line for each in tenant_channels(context, caller.tenant)), "")
    answers = {
        "bundle": bundle or (CHANNEL + channel if channel else ""),
        "place": min(context.places.places(caller.tenant)),
        "count": _FIRST_COUNT,
        "name": _FIRST_NAME,
        "spread": "total",
    }
    classes = _classes(context, caller, answers)
    draft = draft_of(answers, classes)
    return _Asked(draft, answers, classes, text_of(draft))


def _like_job(context: ServerContext, caller: Caller, job: str) -> _Asked:
    """The form filled with the spec of a job. Raises ``Problem`` (404), ``DatasetError``, ``StoreError``."""
    status = find_job(context, caller, job)
    location = read_build_location(open_store(status.url, context.settings.s3), status.name)
    prefix = "/" + build_prefix(status.name, status.url.rpartition("/")[2])
    return _like(
        *(context, caller, location.recipe, status.url.removesuffix(prefix)), name=status.name, priority=status.priority
    )


def _like(
    context: ServerContext, caller: Caller, recipe: Recipe, destination: str, *, name: str, priority: int
) -> _Asked:
    known = chosen_bundle(context, caller, recipe.bundle)
    named = context.places.name_of(caller.tenant, destination)
    place = named or (destination if is_remote(destination) else "")
    draft, note = draft_of_recipe(recipe, known and known[1], destination=place, name=name, priority=priority)
    return _shown(context, caller, draft, note=note)


def _shown(context: ServerContext, caller: Caller, draft: dict[str, Any], text: str = "", note: str = "") -> _Asked:
    chosen = CHANNEL + str(draft["channel"]) if draft.get("channel") else str(draft.get("bundle", ""))
    classes = _classes(context, caller, {"bundle": chosen})
    answers = answers_of(draft, classes, list(context.places.places(caller.tenant)))
    return _Asked(draft, answers, classes, text or text_of(draft), note=note)


def _by_fields(context: ServerContext, caller: Caller, sent: Answers) -> _Asked:
    """The job that the fields state. Classes are numbered as in the page, whose bundle may be another one now."""
    known = chosen_bundle(context, caller, sent.get("classes_of", ""))
    listed = known[1].classes if known else ()
    draft = draft_of(sent, listed)
    classes = _classes(context, caller, sent)
    if classes != listed:
        if lost := sorted({*draft.get("counts", {}), *draft.get("label_floors", {})} - set(classes)):
            draft = {name: value for name, value in draft.items() if name not in ("counts", "label_floors")}
        kept = answers_of(draft, classes, list(context.places.places(caller.tenant)))
        numbered = ("count-of-", "floor-of-")
        sent = {name: value for name, value in sent.items() if not name.startswith(numbered)} | {
            name: value for name, value in kept.items() if name.startswith(numbered)
        }
        note = f"This bundle has other classes; left out: {', '.join(lost[:5])}." if lost else ""
    else:
        note = ""
    asked = _Asked(draft, sent, classes, text_of(draft), note=note)
    _check(asked, draft)
    return asked


def _by_text(context: ServerContext, caller: Caller, text: str) -> _Asked:
    """The job that a text (YAML) states: a draft or a job spec."""
    try:
        document = parse_mapping(text.encode(), where="the text")
    except SpecError as broken:
        asked = _fresh(context, caller, "", "")
        asked.text, asked.errors, asked.by_text = text, [broken], True
        return asked
    spec = _job_spec(document)
    if spec is not None:
        order = spec.order
        known = chosen_bundle(context, caller, spec.recipe.bundle)
        draft, note = draft_of_recipe(
            spec.recipe, known and known[1], destination=order.destination, name=order.name, priority=order.priority
        )
        asked = _shown(context, caller, draft, text, note)
        asked.body, asked.by_text = spec, True
        return asked
    asked = _shown(context, caller, document, text)
    asked.by_text = True
    _check(asked, document)
    return asked


def _job_spec(document: Mapping[str, Any]) -> JobSpec | None:
    if "recipe" not in document:
        return None
    try:
        found = parse_body(dict(document))
    except SpecError:
        return None
    return found if isinstance(found, JobSpec) else None


def _check(asked: _Asked, document: Mapping[str, Any]) -> None:
    """Set the body of ``asked``, or every error of it."""
    model: type[DraftBody] | type[JobSpec] = JobSpec if "recipe" in document else DraftBody
    try:
        asked.body = model.model_validate(document)
    except ValidationError as invalid:
        known = tuple(model.model_fields)
        asked.errors = list(translate_errors(invalid, field="", error=SpecError, known=known, given=document))


def _classes(context: ServerContext, caller: Caller, answers: Mapping[str, str]) -> tuple[str, ...]:
    found = chosen_bundle(context, caller, answers.get("bundle", ""))
    return found[1].classes if found else ()


def _show(
    request: Request, caller: Caller, asked: _Asked, *, status: int = 200, made: Preview | None = None
) -> Response:
    context = context_of(request)
    if asked.errors and status == 200:
        status = 422
    values = _values(context, caller, asked) | {"images": [], "refused": 0}
    if made is not None:
        values["images"] = [
            {"src": data_url(image.data, f"image/{made.format}"), "name": image.class_name or f"image {image.index}"}
            for image in made.images
        ]
        values["refused"] = made.refused
    return render(request, "job_new.html", status=status, **values)


def _values(context: ServerContext, caller: Caller, asked: _Asked) -> dict[str, Any]:
    """What the templates of the form know."""
    chosen = asked.answers.get("bundle", "")
    at, others = place_errors(asked.errors, asked.classes)
    at = {name: context.redact(text, caller.tenant) for name, text in at.items()}
    in_text = [error for error in others if asked.by_text and error.field == "spec"]
    more = [field for _, fields in more_fields() for field in fields]
    lines, bundles = bundle_choices(context, caller, chosen)
    found = chosen_bundle(context, caller, chosen)
    return {
        "answers": asked.answers,
        "errors": at,
        "labels": _labels(asked.classes),
        "text_errors": [context.redact(str(error), caller.tenant) for error in in_text],
        "others": [context.redact(str(error), caller.tenant) for error in others if error not in in_text],
        "note": asked.note,
        "for_readers": warning_of_draft(context, caller, asked.draft),
        "text": asked.text,
        "by_text": asked.by_text,
        "lines": lines,
        "bundles": bundles,
        "places": sorted(context.places.places(caller.tenant)),
        "classes": list(asked.classes[:MAX_CLASSES]),
        "more_classes": max(0, len(asked.classes) - MAX_CLASSES),
        "classes_of": found[0] if found else "",
        "common": common_fields(),
        "more": more_fields(),
        "kept": asked.answers.get(KEPT, ""),
        "keeps_draw": asked.answers.get("draw.mode") == KEPT,
        "shows_floors": any(name.startswith(("floor-of-", "count-of-")) for name in (*asked.draft_by_class(), *at)),
        "opens_more": any(field.name in at or _is_changed(field, asked.answers) for field in more),
    }


def _is_changed(field: FormField, answers: Answers) -> bool:
    """Whether a field has another value than its default."""
    value = answers.get(field.name, "")
    return value != "" and (field.kind != "choice" or value != field.choices[0][0])


def _labels(classes: Sequence[str]) -> dict[str, str]:
    """What each field is called, by its name in the form."""
    labels = {"bundle": "Channel or bundle", "place": "Place", "count": "Images"}
    labels |= {field.name: field.label for field in all_fields()}
    for number, name in enumerate(classes):
        labels |= {f"count-of-{number}": f"Images of {name}", f"floor-of-{number}": f"Label floor of {name}"}
    return labels
