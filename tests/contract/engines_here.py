"""What tests say of the engines that the fixtures start."""

from collections.abc import Awaitable, Callable

from parrotserve.engines.native.engine import NativeEngine

CREDITS = 40
"""Of the engines that keep the contract."""

StartNative = Callable[..., Awaitable[NativeEngine]]
"""Starts a native engine on the tiny model; takes fields of `NativeSettings`."""
