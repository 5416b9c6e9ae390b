"""How many examples hypothesis draws: by profile, and fewer where an example is expensive."""

from hypothesis import settings


def examples(count):
    """Draw `count` examples by default, and in proportion in the other profiles, but at least 3."""
    return settings(max_examples=max(3, settings.default.max_examples * count // 100))
