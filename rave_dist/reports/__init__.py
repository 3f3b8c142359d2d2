"""The report: what came out, as a page to look at and listen to."""
