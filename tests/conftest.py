"""Settings for all tests: property tests are never timed, for a slow machine is no wrong answer."""

import signal

from hypothesis import settings

settings.register_profile("gainful", deadline=None, print_blob=True)
settings.load_profile("gainful")

# A shell starts background jobs with Ctrl-C ignored, and so is it then in every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
