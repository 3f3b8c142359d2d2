"""One optimizer step of RAVE."""
