"""``verify_dataset``: an intact build has no problems; every kind of damage is found and named."""

from __future__ import annotations

import io
import itertools
import random
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from generator.datasets.verification import Verification, shard_checker, verify_dataset
from generator.errors import DatasetError
from generator.production.provenance.manifest import ListedManifest, StoredFile
from generator.production.shards import Member, TarWriter, read_samples
from generator.spec.canonical import canonical_json, digest_of, read_json
from generator.spec.recipe import JpegSettings
from generator.store import Store, open_store
from tests.support.small_builds import SmallBuild

MANIFEST = "manifest.json"
SHARD, TABLE, RECEIPT = "shards/small-000001.tar", "samples/small-000001.parquet", "receipts/000001.json"

Damage = Callable[[Store], None]


def commit_build(build: SmallBuild = SmallBuild()) -> tuple[str, Store]:  # noqa: B008
    """Commit a new build of 13 samples in 3 shards. Returns its URL and a store rooted at its prefix."""
    place, _ = build.commit(f"memory://{uuid.uuid4().hex}")
    return place.url, place.store


def checks(found: Verification, where: str) -> set[str]:
    return {problem.check for problem in found.problems if problem.where == where}


def flip(key: str, at: int = -1) -> Damage:
    def damage(store: Store) -> None:
        data = bytearray(store.get(key))
        data[len(data) // 2 if at < 0 else at] ^= 1
        store.put(key, bytes(data))

    return damage


def swap(one: str, other: str) -> Damage:
    def damage(store: Store) -> None:
        first, second = store.get(one), store.get(other)
        store.put(one, second)
        store.put(other, first)

    return damage


def rewrite(**changes: Any) -> Damage:
    """Change fields of the manifest; it stays canonical."""

    def damage(store: Store) -> None:
        document = read_json(store.get(MANIFEST), field=MANIFEST, error=DatasetError)
        store.put(MANIFEST, canonical_json(document | changes))

    return damage


def rewrite_receipt(**changes: Any) -> Damage:
    """Change the manifest's copy of the receipt of shard 1, and the stored receipt with it."""

    def damage(store: Store) -> None:
        document = read_json(store.get(MANIFEST), field=MANIFEST, error=DatasetError)
        document["shards"][1] |= changes
        store.put(MANIFEST, canonical_json(document))
        store.put(RECEIPT, canonical_json(document["shards"][1]))

    return damage


def reseal(change: Callable[[str, dict[str, bytes]], None]) -> Damage:
    """Change every sample of shard 1 and update all digests, so that only the contents show the change."""

    def damage(store: Store) -> None:
        writer = TarWriter()
        for key, files in read_samples(store.get(SHARD), field=SHARD):
            change(key, files)
            writer.add(key, [Member(name, data) for name, data in files.items()])
        seal(store, writer.finish())

    return damage


def seal(store: Store, archive: bytes) -> None:
    manifest = ListedManifest.model_validate_json(store.get(MANIFEST))
    old = manifest.shards[1]
    new = old.model_copy(update={"shard": StoredFile(key=SHARD, digest=digest_of(archive), size=len(archive))})
    shards = (manifest.shards[0], new, *manifest.shards[2:])
    size = manifest.bytes + len(archive) - old.shard.size
    store.put(SHARD, archive)
    store.put(RECEIPT, new.canonical())
    store.put(MANIFEST, manifest.model_copy(update={"shards": shards, "bytes": size}).canonical())


@pytest.mark.parametrize(
    "build",
    [
        SmallBuild(),
        SmallBuild(classes=(), counts=(11,), channels=3),
        SmallBuild(image=JpegSettings(), size=16),
        SmallBuild(shard_size=1, counts=(2, 0)),
    ],
    ids=["labelled", "unlabelled", "jpeg", "empty class"],
)
def test_an_intact_build_has_no_problems(build: SmallBuild) -> None:
    url, store = commit_build(build)
    store.put("runs/abc.json", b"{}")
    store.put("reports/quality/index.html", b"<html>")
    found = verify_dataset(url, deep=True)
    assert found.ok
    assert found.problems == ()
    assert found.samples == sum(build.counts)
    assert found.shards == -(-found.samples // build.shard_size)
    assert found.bytes == sum(info.size for info in store.list() if not info.key.startswith(("runs/", "reports/")))


def test_a_dataset_is_verified_through_its_build(tmp_path: Any) -> None:
    SmallBuild().commit(str(tmp_path))
    assert verify_dataset(f"{tmp_path}/small", deep=True).ok


def test_tells_how_far_it_is() -> None:
    done: list[int] = []
    verify_dataset(commit_build()[0], on_shard=done.append, deep=True)
    assert done == [1, 2, 3]


@pytest.mark.parametrize(
    ("damage", "where", "check"),
    [
        (flip(SHARD), SHARD, "digest"),
        (flip(SHARD, at=600), SHARD, "image"),
        (flip(TABLE), TABLE, "digest"),
        (flip(RECEIPT), RECEIPT, "the manifest's copy"),
        (flip("recipe.json"), "recipe.json", "digest"),
        (flip("environment.json"), "environment.json", "digest"),
        (flip("README.md"), "README.md", "digest"),
        (flip("croissant.json"), "croissant.json", "digest"),
        (flip("preview.jpg"), "preview.jpg", "digest"),
        (swap(SHARD, "shards/small-000002.tar"), SHARD, "digest"),
        (swap(SHARD, "shards/small-000002.tar"), SHARD, "sample key"),
        (swap(TABLE, "samples/small-000000.parquet"), TABLE, "index of a row"),
        (swap(RECEIPT, "receipts/000002.json"), RECEIPT, "the manifest's copy"),
        (lambda store: store.put(SHARD, store.get(SHARD)[:5000]), SHARD, "size"),
        (lambda store: store.put(SHARD, store.get(SHARD)[:5120]), SHARD, "number of samples"),
        (lambda store: store.put(SHARD, b""), SHARD, "number of samples"),
        (lambda store: store.put(TABLE, b"not parquet"), TABLE, "format"),
        (lambda store: store.delete(SHARD), SHARD, "object"),
        (lambda store: store.delete(TABLE), TABLE, "object"),
        (lambda store: store.delete(RECEIPT), RECEIPT, "object"),
        (lambda store: store.delete("recipe.json"), "recipe.json", "object"),
        (lambda store: store.delete("environment.json"), "environment.json", "object"),
        (lambda store: store.delete("README.md"), "README.md", "object"),
        (lambda store: store.put("recipe.json", b"{}"), "recipe.json", "digest"),
        (lambda store: store.put("environment.json", b"{}"), "environment.json", "digest"),
        (lambda store: store.put("shards/small-000003.tar", b"x"), "shards/small-000003.tar", "object"),
        (lambda store: store.put("notes.txt", b"x"), "notes.txt", "object"),
        (lambda store: store.put(MANIFEST, store.get(MANIFEST) + b"\n"), MANIFEST, "canonical JSON"),
        (lambda store: store.put(MANIFEST, b"{}"), MANIFEST, "manifest.json.name"),
        (lambda store: store.put(MANIFEST, b"\xff"), MANIFEST, "manifest.json"),
        (rewrite(samples=12), MANIFEST, "samples"),
        (rewrite(bytes=1), MANIFEST, "bytes"),
        (rewrite(refused=4), MANIFEST, "refused"),
        (rewrite(counts=[6, 7]), MANIFEST, "counts"),
        (rewrite(classes=["square", "round"]), MANIFEST, "classes"),
        (rewrite(build_id="0" * 20), MANIFEST, "build_id"),
        (rewrite(recipe_digest=digest_of(b"other")), MANIFEST, "digest of recipe"),
        (rewrite(recipe={"bundle": "?"}), MANIFEST, "recipe.bundle"),
        (rewrite(environments={digest_of(b"other"): {}}), MANIFEST, "digest of environment"),
        (rewrite(environments={}), MANIFEST, "environment of shard 0"),
        (rewrite(shards=[]), MANIFEST, "shard numbers"),
        (rewrite(extras=[]), MANIFEST, "extras"),
        (rewrite(name="other"), "shards/other-000000.tar", "object"),
        (rewrite(image={"height": 9, "width": 8, "channels": 1, "format": "png"}), SHARD, "height, width, channels"),
        (rewrite(image={"height": 8, "width": 8, "channels": 1, "format": "jpeg"}), SHARD, "jpeg file"),
        (rewrite_receipt(samples=3), MANIFEST, "samples of shard 1"),
        (rewrite_receipt(counts=[4, 0]), MANIFEST, "counts of shard 1"),
        (rewrite_receipt(number=7), MANIFEST, "shard numbers"),
        (rewrite_receipt(recipe=digest_of(b"other")), MANIFEST, "recipe of shard 1"),
        (rewrite_receipt(environment=digest_of(b"other")), MANIFEST, "environment of shard 1"),
        (rewrite_receipt(refused=9), MANIFEST, "refused"),
    ],
)
def test_planted_damage_is_found(damage: Damage, where: str, check: str) -> None:
    url, store = commit_build()
    damage(store)
    found = verify_dataset(url, deep=True)
    assert check in checks(found, where), "\n".join(map(str, found.problems))
    assert not found.ok
    quick = verify_dataset(url)
    if check in ("height, width, channels", "jpeg file"):  # without ``deep``, of the first sample of the build alone
        where = "shards/small-000000.tar"
    assert check in checks(quick, where), "\n".join(map(str, quick.problems))
    assert not quick.ok


def test_without_deep_every_byte_is_hashed_and_one_image_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    decode = shard_checker.decode_image

    def note(data: bytes, *, field: str) -> np.ndarray:
        decoded.append(field)
        return decode(data, field=field)

    monkeypatch.setattr(shard_checker, "decode_image", note)
    url, store = commit_build()
    found = verify_dataset(url)
    assert (found.ok, found.shards, found.samples) == (True, 3, 13)
    assert found.bytes == sum(info.size for info in store.list())
    assert decoded == ["000000000"]
    assert verify_dataset(url, deep=True).ok
    assert len(decoded) == 14
    flip(SHARD)(store)
    verify_dataset(url)
    assert decoded[14:] == ["000000000", "000000005", "000000006", "000000007", "000000008"]


def unmarked(key: str, files: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with Image.open(io.BytesIO(files["png"])) as image:
        Image.fromarray(np.array(image)).save(out, "PNG")
    files["png"] = out.getvalue()


def swapped_labels(key: str, files: dict[str, bytes]) -> None:
    files["cls"] = b"1" if files["cls"] == b"0" else b"0"


def facts(**changes: Any) -> Callable[[str, dict[str, bytes]], None]:
    def change(key: str, files: dict[str, bytes]) -> None:
        files["json"] = canonical_json(read_json(files["json"], field=key, error=DatasetError) | changes)

    return change


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (unmarked, "marked synthetic"),
        (unmarked, "image sha256, as in the table"),
        (swapped_labels, "label of a sample"),
        (facts(label=7), "label of a sample"),
        (facts(index=0), "index of a sample"),
        (facts(attempt=5), "attempt of a sample, as in the table"),
        (facts(log_density=0.5), "log_density of a sample, as in the table"),
        (facts(cluster=8), "cluster of a sample, as in the table"),
        (facts(recipe=digest_of(b"other")), "recipe of a sample"),
        (facts(synthetic=False), "synthetic of a sample"),
        (lambda key, files: files.update(json=b"[]"), "facts of a sample"),
        (lambda key, files: files.update(png=b"GIF89a"), "image"),
        (lambda key, files: files.update(txt=b"more"), "files of a sample"),
        (lambda key, files: files.pop("cls"), "files of a sample"),
        (lambda key, files: files.pop("png"), "image"),
    ],
)
def test_contents_that_contradict_plan_or_table_are_found_under_right_digests(
    change: Callable[[str, dict[str, bytes]], None], check: str
) -> None:
    url, store = commit_build()
    reseal(change)(store)
    assert verify_dataset(url).ok  # every byte is what its writer committed
    found = verify_dataset(url, deep=True)
    assert check in checks(found, SHARD), "\n".join(map(str, found.problems))
    assert {problem.where for problem in found.problems} == {SHARD}


def retable(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    """Change the columns of the table of shard 1 and update all digests, so that only the contents show the change."""

    def damage(store: Store) -> None:
        columns = pq.read_table(io.BytesIO(store.get(TABLE))).to_pydict()
        schema, out = pq.read_schema(io.BytesIO(store.get(TABLE))), io.BytesIO()
        changed = change(columns)
        kept = pa.schema([schema.field(name) for name in changed])
        pq.write_table(pa.table(changed, schema=kept), out)
        manifest = ListedManifest.model_validate_json(store.get(MANIFEST))
        old, data = manifest.shards[1], out.getvalue()
        new = old.model_copy(update={"table": StoredFile(key=TABLE, digest=digest_of(data), size=len(data))})
        size = manifest.bytes + len(data) - old.table.size
        store.put(TABLE, data)
        store.put(RECEIPT, new.canonical())
        shards = (manifest.shards[0], new, *manifest.shards[2:])
        store.put(MANIFEST, manifest.model_copy(update={"shards": shards, "bytes": size}).canonical())

    return damage


def test_an_equal_table_written_again_has_no_problems() -> None:
    url, store = commit_build()
    retable(lambda columns: columns)(store)
    assert verify_dataset(url, deep=True).problems == ()


@pytest.mark.parametrize("name", ["offset", "size"])
@pytest.mark.parametrize("wrong", [0, -1, 1, 2**62, None])
def test_an_offset_or_a_size_that_is_not_the_images_is_found(name: str, wrong: int | None) -> None:
    url, store = commit_build()
    retable(lambda columns: columns | {name: [wrong, *columns[name][1:]]})(store)
    (problem,) = verify_dataset(url, deep=True).problems
    assert (problem.where, problem.check) == (SHARD, "sha256 of the bytes at offset, size of the table")
    assert problem.times == 1


def test_the_bytes_of_another_image_are_not_the_images() -> None:
    url, store = commit_build()
    retable(lambda columns: columns | {"offset": columns["offset"][::-1], "size": columns["size"][::-1]})(store)
    assert {problem.times for problem in verify_dataset(url, deep=True).problems} == {4}


def test_a_version_2_table_without_its_columns_is_found() -> None:
    url, store = commit_build()
    retable(lambda columns: {name: column for name, column in columns.items() if name != "map_x"})(store)
    assert checks(verify_dataset(url, deep=True), TABLE) == {"format"}


def test_a_version_1_build_has_no_offsets_and_no_problems() -> None:
    url, store = commit_build(SmallBuild(recipe_version=1))
    assert "offset" not in pq.read_schema(io.BytesIO(store.get(TABLE))).names
    assert verify_dataset(url, deep=True).problems == ()
    retable(lambda columns: columns | {"label_confidence": [0.5] * 4})(store)
    assert checks(verify_dataset(url, deep=True), SHARD) == {"label_confidence of a sample, as in the table"}


def test_a_sample_in_another_place_is_found_under_right_digests() -> None:
    url, store = commit_build()
    samples = list(read_samples(store.get(SHARD), field=SHARD))
    writer = TarWriter()
    for key, files in reversed(samples):
        writer.add(key, [Member(name, data) for name, data in files.items()])
    seal(store, writer.finish())
    assert "sample key" in checks(verify_dataset(url, deep=True), SHARD)


def test_all_damage_is_listed_in_one_run() -> None:
    url, store = commit_build()
    for damage in (flip(TABLE), flip("README.md"), flip("shards/small-000000.tar")):
        damage(store)
    store.delete(RECEIPT)
    store.put("stray", b"")
    found = verify_dataset(url, deep=True)
    expected = {TABLE, "README.md", "shards/small-000000.tar", RECEIPT, "stray"}
    assert {problem.where for problem in found.problems} == expected


def test_one_complaint_about_many_samples_is_told_once() -> None:
    url, store = commit_build()
    reseal(facts(synthetic=False))(store)
    (problem,) = verify_dataset(url, deep=True).problems
    assert problem.times == 4
    assert "3 more" in str(problem)
    assert problem.facts()["times"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_byte_is_missed_or_raises(seed: int) -> None:
    url, store = commit_build(SmallBuild(counts=(3, 2), shard_size=3))
    rng = random.Random(seed)
    # Without the manifest: three names in it are stored nowhere else.
    objects = [(info.key, store.get(info.key)) for info in store.list() if info.key != MANIFEST]
    for (key, data), _ in itertools.product(objects, range(12)):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        store.put(key, bytes(damaged))
        for deep in (False, True):
            assert any(problem.where == key for problem in verify_dataset(url, deep=deep).problems)
        store.put(key, data)


def test_no_committed_build_is_an_error_and_not_a_finding() -> None:
    place = SmallBuild().begin(f"memory://{uuid.uuid4().hex}")
    with pytest.raises(DatasetError):
        verify_dataset(place.url, deep=True)


def test_facts_are_plain_json() -> None:
    url, store = commit_build()
    flip(SHARD)(store)
    found = read_json(canonical_json(verify_dataset(url, deep=True).facts()), field="facts", error=DatasetError)
    assert found["ok"] is False
    assert found["problems"][0]["where"] == SHARD
    assert found["url"] == open_store(url).url
