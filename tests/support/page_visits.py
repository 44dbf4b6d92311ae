"""A bundle that keeps pictures and has hostile names, and pages as a browser with a session asks for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from generator.models.autoencoders.settings import EpochRecord, TrainSettings
from generator.models.bundle import SourceFacts, TrainingFacts, save_bundle
from generator.models.bundle.reconstructions import make_reconstructions
from generator.models.bundle.thumbnails import make_thumbnails
from generator.models.latents.fitting.code_map import fit_code_map
from tests.support.bundles import tiny_contents
from tests.support.http_server import Answer
from tests.support.mill_server import MillServer
from workers.server.access.tokens import csrf_value

EVIL = "<script>alert(1)</script>\"'{{ 7777 * 7777 }}"
CLASSES = (EVIL, "dog", "owl")


def kept_bundle(directory: Path, *, classes: tuple[str, ...] = CLASSES, epochs: int = 40) -> Path:
    """A small bundle with thumbnails, reconstructions, a map, a history and hostile names."""
    contents = tiny_contents(classes=classes, size=8)
    images = np.random.default_rng(0).integers(0, 256, (len(contents.codes.codes_ND), 8, 8, 1), dtype=np.uint8)
    history = tuple(
        EpochRecord(epoch=at, train_loss=90.0 / at, holdout_loss=100.0 / at + at, holdout_terms={}, best=at <= 10)
        for at in range(1, epochs + 1)
    )
    facts = SourceFacts(name=f"source {EVIL}", fingerprint="sha256:" + "0" * 64, images=27, holdout=3)
    save_bundle(
        directory,
        replace(
            contents,
            source=facts,
            training=TrainingFacts(settings=TrainSettings(), history=history),
            thumbnails=make_thumbnails(images),
            reconstructions=make_reconstructions(images[:6], images[6:12], np.array([0, 0, 1, 1, 2, 2])),
            code_map=fit_code_map(contents.codes),
        ),
    )
    return directory


@dataclass
class Visitor:
    """A browser with the session of a key."""

    mill: MillServer
    key: str = "red-operator"

    def get(self, path: str, **headers: str) -> Answer:
        return self.mill.web.get(path, headers={"Cookie": self.cookie} | headers)

    def send(self, path: str, **fields: str) -> Answer:
        body = urlencode({"csrf": csrf_value(self.mill.tokens[self.key])} | fields).encode()
        headers = {
            "Cookie": self.cookie,
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": self.mill.web.url,
        }
        return self.mill.web.post(path, body=body, headers=headers)

    @property
    def cookie(self) -> str:
        return f"latentmill_session={self.mill.tokens[self.key]}"

    def page(self, path: str, status: int = 200) -> Markup:
        answer = self.get(path)
        assert answer.status == status, answer.body
        return Markup(answer)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.found = list[tuple[str, dict[str, str]]]()
        self.words = list[str]()
        self.feed(answer.body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


class Markup(Elements):
    """A page in which nothing runs: what would is an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.check_inert()

    def by_id(self, wanted: str) -> dict[str, str]:
        (found,) = (attributes for _, attributes in self.found if attributes.get("id") == wanted)
        return found

    def check_inert(self) -> None:
        """Nothing inline runs, no element has a handler or a style, and nothing leads to another host."""
        assert all(each.get("src", "").startswith("/static/") for each in self.named("script"))
        names = {name for _, attributes in self.found for name in attributes}
        assert not {name for name in names if name.startswith("on") or name in ("style", "srcdoc")}
        for _, attributes in self.found:
            for name in ("src", "href", "action", "hx-get", "hx-post"):
                value = attributes.get(name, "/")
                assert value.startswith(("/", "#", "data:image/")), value
                assert not value.startswith("//"), value
        assert "60481729" not in self.text
