"""Engines: what prefills and decodes for one model, behind one contract (`base`)."""
