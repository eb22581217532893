"""One page that says how good backbones are and for what: a single HTML file that opens without a network."""

from siamtransfer.reports.options import ReportOptions
from siamtransfer.reports.write import write_report

__all__ = ["ReportOptions", "write_report"]
