"""Parrot: a service for LLM applications. Users import `Parrot`; the code lives here."""

import logging

__version__ = "0.1.0"

# A library is silent until the program that uses it configures logging; what concerns the program is raised.
logging.getLogger(__name__).addHandler(logging.NullHandler())
