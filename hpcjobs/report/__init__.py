"""report.html: one self-contained file that opens from disk."""

from hpcjobs.report.page import write_report

__all__ = ["write_report"]
