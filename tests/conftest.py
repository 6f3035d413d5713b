"""Settings for all tests: property tests are never timed, for a slow machine is no wrong answer."""

from hypothesis import settings

settings.register_profile("gainful", deadline=None, print_blob=True)
settings.load_profile("gainful")
