"""Tenants: who they are, what they may, and what they used."""
