"""How to cite a build, and who made it: what the recipe says, or else what follows from the manifest."""

from __future__ import annotations

from generator.production.provenance.manifest import Manifest
from generator.spec.recipe import Recipe

SOFTWARE = "latentmill"


def creator_name(recipe: Recipe) -> str:
    """The name of the creator; without one, that of the software."""
    return SOFTWARE if recipe.creator is None else recipe.creator.name


def cite(manifest: Manifest, recipe: Recipe) -> str:
    """The citation of the recipe, which has ``published``; without one, a BibTeX entry that names the build."""
    if recipe.citation is not None:
        return recipe.citation
    license_line = [] if recipe.license is None else [("copyright", recipe.license)]
    fields = [
        ("author", f"{{{_escape(creator_name(recipe))}}}"),
        ("title", f"{_escape(manifest.name)}: {manifest.samples} synthetic images"),
        ("year", (recipe.published or "")[:4]),
        ("version", f"1.{recipe.revision}.0"),
        ("note", f"Synthetic image dataset, recipe {manifest.recipe_digest}"),
        *((name, _escape(value)) for name, value in license_line),
    ]
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields)
    return f"@misc{{{manifest.name}-{manifest.build_id},\n{lines}\n}}"


def _escape(text: str) -> str:
    """``text`` for a BibTeX field: without what TeX reads as a command or as the end of the field."""
    plain = text.replace("\\", "/").replace("{", "(").replace("}", ")")
    return "".join(f"\\{char}" if char in "&%$#_" else char for char in plain)
