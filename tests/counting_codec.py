"""A codec context that counts what it is fed."""

from __future__ import annotations

from typing import Any


class CountingCodec:
    """A codec context that counts the packets it is fed."""

    def __init__(self, codec: Any) -> None:
        self.__dict__.update(codec=codec, packets=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.codec, name, value)

    def decode(self, packet: Any) -> Any:
        self.__dict__["packets"] += packet is not None
        return self.codec.decode(packet)
