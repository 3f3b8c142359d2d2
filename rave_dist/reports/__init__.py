"""The report: results of a library as a page with pictures and sounds."""
