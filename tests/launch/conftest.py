"""The tiny pipeline, for the tests of its binaries."""

from tests.tiny import launch, start, tiny

__all__ = ['launch', 'start', 'tiny']
