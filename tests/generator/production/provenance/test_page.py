"""The page of a build: one file of bounded size that needs no server, runs nothing, and escapes every name."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from generator.datasets.verification import verify_dataset
from generator.models.bundle import Bundle, load_bundle, save_bundle
from generator.models.latents.fitting.code_map import fit_code_map
from generator.production.commit import BuildLocation, locate_build
from generator.production.images import image_encoder, is_marked_synthetic, marked_build
from generator.production.mill import build
from generator.production.provenance.manifest import PAGE_KEY, Manifest
from generator.production.provenance.page import MAX_PAGE_BYTES, PageSample, choose_samples, page_bytes
from generator.production.provenance.page.pictures import MAX_IMAGE_BYTES, MAX_SAMPLES
from generator.spec.canonical import canonical_json
from generator.spec.publication import Creator
from generator.spec.recipe import JobSpec, JpegSettings, Order, PngSettings, Recipe
from generator.store import open_store
from tests.support.bundles import tiny_contents
from tests.support.small_builds import BUNDLE, SmallBuild

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


class Elements(HTMLParser):
    """Names and attributes of all elements of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = list[tuple[str, dict[str, str | None]]]()
        self.text = list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory, contents = tmp_path_factory.mktemp("b") / "mapped", tiny_contents(size=16, channels=3)
    save_bundle(directory, replace(contents, code_map=fit_code_map(contents.codes)))
    return load_bundle(open_store(str(directory)))


def location_for(bundle: Bundle, destination: str, **changes: Any) -> BuildLocation:
    fields = {"classes": bundle.info.classes, "counts": (40, 30, 33), "shard_size": 60, "batch": 16, "page": True}
    recipe = Recipe.model_validate({"bundle": bundle.digest, "published": "2026-03-01", **fields, **changes})
    return locate_build(JobSpec(recipe=recipe, order=Order(destination=destination, name="shown")))


def page_of(location: BuildLocation) -> tuple[str, Elements]:
    text = location.store.get(PAGE_KEY).decode()
    return text, Elements(text)


def test_the_manifest_lists_it_and_it_is_the_same_everywhere(bundle: Bundle, tmp_path: Path) -> None:
    here, there = location_for(bundle, str(tmp_path / "a")), location_for(bundle, str(tmp_path / "b"))
    manifest = build(here, bundle, device="cpu")
    assert manifest == build(there, bundle, device="cpu")
    assert PAGE_KEY in {file.key for file in manifest.extras}
    assert here.store.get(PAGE_KEY) == there.store.get(PAGE_KEY)
    assert verify_dataset(here.url).ok
    (tmp_path / "a" / "shown" / "builds" / here.build_id / PAGE_KEY).write_bytes(b"<p>another")
    assert {(each.where, each.check) for each in verify_dataset(here.url).problems} >= {(PAGE_KEY, "digest")}


def test_a_recipe_that_does_not_ask_for_it_has_none(bundle: Bundle) -> None:
    location = location_for(bundle, "memory://pageless", page=False)
    manifest = build(location, bundle, device="cpu")
    assert {file.key for file in manifest.extras} == {"README.md", "croissant.json", "preview.jpg"}
    assert b"page" not in location.recipe_bytes
    assert Recipe.model_validate({"recipe_version": 2, "bundle": BUNDLE, "counts": (1,)}).page is False
    location.store.create(PAGE_KEY, b"not of the build")
    assert [each.where for each in verify_dataset(location.url).problems] == [PAGE_KEY]


def test_it_shows_counts_images_map_and_facts(bundle: Bundle) -> None:
    location = location_for(bundle, "memory://shown")
    manifest = build(location, bundle, device="cpu")
    text, elements = page_of(location)
    words = " ".join(elements.text)
    assert "103" in words
    assert all(fact in words for fact in (manifest.build_id, manifest.recipe_digest, manifest.provenance.bundle))
    rows = [line for line in text.splitlines() if '<td class="number">' in line]
    assert [re.search(r"number\">(\d+)", row)[1] for row in rows] == ["40", "30", "33"]  # type: ignore[index]
    images = elements.named("img")
    assert len(images) == 52  # one of two shards
    for image in images:
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        assert is_marked_synthetic(data)
        assert marked_build(data) == manifest.build_id
    assert len(elements.named("path")) == 3  # the map: a path for each class
    assert len(elements.named("rect")) == 24  # log-densities; no judge looked at this build


def test_nothing_in_it_can_run_or_fetch(bundle: Bundle) -> None:
    location = location_for(bundle, "memory://inert")
    build(location, bundle, device="cpu")
    text, elements = page_of(location)
    assert not {name for name, _ in elements.found} & {"script", "iframe", "object", "link", "base", "form", "embed"}
    assert not [value for _, attributes in elements.found for value in attributes if value.startswith(("on", "style"))]
    (policy,) = (each["content"] or "" for each in elements.named("meta") if "http-equiv" in each)
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert all((each["src"] or "").startswith("data:image/png;base64,") for each in elements.named("img"))
    targets = {each["href"] or "" for each in elements.named("a")}
    assert {each for each in targets if not each.startswith("#")} == {
        *("README.md", "croissant.json", "recipe.json", "manifest.json")
    }


def hostile_manifest(classes: int = 2) -> Manifest:
    names = tuple(f"{HOSTILE} {number:05d}" + "<" * 100 for number in range(classes))
    small = SmallBuild(
        classes=names,
        counts=(3,) * classes,
        shard_size=10_000,
        published="2026-03-01",
        license=HOSTILE,
        creator=Creator(name=HOSTILE),
    )
    draft = small.draft(small.begin(f"memory://hostile-{classes}"), ())
    return draft.model_copy(
        update={"provenance": draft.provenance.model_copy(update={"source": HOSTILE, "model": HOSTILE})}
    )


def hostile_samples(count: int, label: int = 0, image: str = "data:image/png;base64,AAAA") -> list[PageSample]:
    facts = {"index": 1, "label": label, "attempt": 0, "cluster": HOSTILE, "log_density": HOSTILE}
    return [PageSample("000000001", image, facts)] * count


def test_names_are_escaped_everywhere() -> None:
    manifest = hostile_manifest()
    text = page_bytes(manifest, hostile_samples(2), []).decode()
    elements = Elements(text)
    assert not elements.named("script")
    assert all("onerror" not in attributes for _, attributes in elements.found)
    assert html.escape(HOSTILE[:20]).replace("&quot;", "&#34;") in text
    assert "".join(elements.text).count("<script>alert(1)</script>") >= 6  # class, heading, source, model, facts


@pytest.mark.slow
def test_it_has_at_most_two_mebibytes_whatever_the_build() -> None:
    manifest, rng = hostile_manifest(classes=3000), np.random.default_rng(0)
    image = "data:image/png;base64," + "A" * (MAX_IMAGE_BYTES // MAX_SAMPLES * 4 // 3)
    samples = [each for label in range(MAX_SAMPLES) for each in hostile_samples(1, label, image)]
    columns = {name: rng.normal(size=20_000).tolist() for name in ("map_x", "map_y", "log_density")}
    columns |= {"label_confidence": rng.uniform(size=20_000).tolist(), "label": [1] * 20_000}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    page = page_bytes(manifest, samples, rows)
    assert MAX_IMAGE_BYTES < len(page) <= MAX_PAGE_BYTES
    assert b"2,900 more classes" in page


def files_of(image_HWC: np.ndarray, index: int, label: int | None, image: Any) -> tuple[str, dict[str, bytes]]:
    data = image_encoder(image, 2, "0" * 20)(image_HWC)
    suffix = "png" if image.format == "png" else "jpg"
    facts = canonical_json({"index": index, "label": label})
    return f"{index:09d}", {suffix: data, "json": facts}


def test_every_class_gets_its_turn_before_any_gets_another() -> None:
    recipe = Recipe(bundle=BUNDLE, classes=tuple(map(str, range(100))), counts=(10,) * 100, published="2026-03-01")
    image_HWC = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    stored = [files_of(image_HWC, index, 0 if index < 500 else index % 100, PngSettings()) for index in range(1000)]
    counts = np.bincount([each.label or 0 for each in choose_samples(stored, recipe, None)], minlength=100)
    assert counts.sum() == MAX_SAMPLES
    assert set(counts.tolist()) == {2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [PngSettings(), JpegSettings()])
@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_embedded_smaller_and_marked(settings: Any, channels: int) -> None:
    recipe = Recipe(bundle=BUNDLE, counts=(40,), image=settings, published="2026-03-01")
    noise_HWC = np.random.default_rng(0).integers(0, 256, (512, 300, channels), dtype=np.uint8)
    samples = choose_samples((files_of(noise_HWC, index, None, settings) for index in range(40)), recipe, "a" * 20)
    data = [base64.b64decode(sample.image.partition(",")[2]) for sample in samples]
    assert len(data) == 40
    assert sum(map(len, data)) <= MAX_IMAGE_BYTES
    assert (is_marked_synthetic(data[0]), marked_build(data[0])) == (True, "a" * 20)
    with Image.open(io.BytesIO(data[0])) as image:
        assert (image.format, image.size) == ("JPEG", (75, 128))


def test_the_bytes_of_a_page_are_kept() -> None:
    """Guards law 2: another release makes the same page of the same build; a change of this is a new recipe version."""
    manifest = SmallBuild(published="2026-03-01").draft(SmallBuild(published="2026-03-01").begin("memory://kept"), ())
    rows = [{"label": n % 2, "log_density": -n, "label_confidence": n / 9, "map_x": n, "map_y": -n} for n in range(9)]
    page = page_bytes(manifest, hostile_samples(3), rows)
    assert hashlib.sha256(page).hexdigest() == KEPT


KEPT = "df0b14e7d2fa3218749ebbf855d3a3bc1173d33e4dd357dc82677af98a79cfbe"
