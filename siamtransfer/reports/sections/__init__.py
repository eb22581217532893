"""The sections of the page, a file each, in the order of the page."""

from collections.abc import Callable

from siamtransfer.reports.section import Section
from siamtransfer.reports.sections.answer import answer_section
from siamtransfer.reports.sections.backbones import backbones_section
from siamtransfer.reports.sections.calibration import calibration_section
from siamtransfer.reports.sections.classes import classes_section
from siamtransfer.reports.sections.confusions import confusions_section
from siamtransfer.reports.sections.cost import cost_section
from siamtransfer.reports.sections.curves import curves_section
from siamtransfer.reports.sections.every import every_section
from siamtransfer.reports.sections.files import files_section
from siamtransfer.reports.sections.gallery import gallery_section
from siamtransfer.reports.sections.invariance import invariance_section
from siamtransfer.reports.sections.map import map_section
from siamtransfer.reports.sections.numbers import numbers_section
from siamtransfer.reports.sections.pictures import pictures_section
from siamtransfer.reports.sections.protocols import protocols_section
from siamtransfer.reports.sections.scores import scores_section
from siamtransfer.reports.sections.shifted import shifted_section
from siamtransfer.reports.sources import Sources

SECTIONS: tuple[Callable[[Sources], Section | None], ...] = (
    answer_section,
    numbers_section,
    scores_section,
    backbones_section,
    curves_section,
    map_section,
    gallery_section,
    classes_section,
    confusions_section,
    calibration_section,
    shifted_section,
    invariance_section,
    cost_section,
    pictures_section,
    protocols_section,
    every_section,
    files_section,
)
"""Each makes its section of what the page is made of, or None where that has nothing for it."""
