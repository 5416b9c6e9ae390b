"""The number of examples that hypothesis draws: DEFAULT, changed by profile, and lower for expensive tests."""

from hypothesis import settings

DEFAULT = 50


def examples(count):
    """Draw `count` examples by default, and in proportion in the other profiles, but at least 3."""
    return settings(max_examples=max(3, settings.default.max_examples * count // DEFAULT))
