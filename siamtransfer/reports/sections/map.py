"""The section of the map of images: where a backbone puts them, and which are neighbours."""

from __future__ import annotations

from siamtransfer.reports.answers import collect_answers
from siamtransfer.reports.map_data import ShownMap, map_content
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import Sources

SCRIPTS = ("map_data.js", "map_view.js", "map_gestures.js", "map_panel.js", "map.js")
METHODS = {"tsne": "t-SNE", "pca": "two principal components"}


def map_section(sources: Sources) -> Section | None:
    """The maps of images; None where there are none."""
    if not sources.maps:
        return None
    content = map_content(sources, collect_answers(sources))
    return Section(
        "map",
        "Map of images",
        "sections/map.html",
        {
            "maps": content.maps,
            "notes": [trust(shown) for shown in content.maps],
            "left_out": content.left_out,
        },
        data=content.as_json() if content.maps else None,
        scripts=SCRIPTS if content.maps else (),
        styles=("map.css",),
    )


def trust(shown: ShownMap) -> str:
    """What a map is, and how far it can be trusted, in sentences."""
    facts, images = shown.map.facts, len(shown.map)
    quality, whole = facts.get("quality", {}), facts.get("set", {}).get("images", images)
    layout = facts.get("layout", {})
    drawn = f"{images:,} images" if whole == images else f"{images:,} of {whole:,} images, drawn at random"
    sentences = [f"{drawn}, laid out by {METHODS.get(layout.get('method'), 'an unknown method')}."]
    if "neighbours_kept" in quality:
        sentences.append(
            f"Of the nearest images by features {quality['neighbours_kept']:.0f} % are among the nearest on "
            "the map, so trust the list of neighbours before the picture."
        )
    if "same_class" in quality:
        sentences.append(
            f"{quality['same_class']:.0f} % of an image's nearest by features have its label, and "
            f"{quality['same_class_on_map']:.0f} % of its nearest on the map."
        )
    sentences.append("Distances between groups, and their sizes, mean nothing.")
    return " ".join(sentences)
