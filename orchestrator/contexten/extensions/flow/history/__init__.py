"""History: what ended, in figures; and runs and journal as files for other programs."""

from .exporting import EVENT_COLUMNS, RUN_COLUMNS, Export, ExportFormat
from .history import By, History
from .views import HistoryRow, HistoryView

__all__ = ["EVENT_COLUMNS", "RUN_COLUMNS", "By", "Export", "ExportFormat", "History", "HistoryRow", "HistoryView"]
