"""The number of examples that hypothesis draws: DEFAULT, changed by profile, and lower for expensive tests."""

from hypothesis import settings

DEFAULT = 25


def examples(count):
    """Draw `count` examples where a cheap test draws 50, and in proportion in each profile, but at least 3."""
    return settings(max_examples=max(3, settings.default.max_examples * count // 50))
