"""How many examples hypothesis draws: DEFAULT, or more and fewer by profile, and fewer where one is expensive."""

from hypothesis import settings

DEFAULT = 50


def examples(count):
    """Draw `count` examples by default, and in proportion in the other profiles, but at least 3."""
    return settings(max_examples=max(3, settings.default.max_examples * count // DEFAULT))
