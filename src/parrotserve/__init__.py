"""Parrot: a service for LLM applications. Users import `Parrot`; the code lives here."""

__version__ = "0.1.0"
