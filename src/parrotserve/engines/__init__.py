"""Engines, each of which prefills and decodes for one model, behind one contract (`base`)."""
