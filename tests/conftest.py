"""What holds for all tests."""

from hypothesis import settings

# a machine that is busy with something else is no error of the code
settings.register_profile("patient", settings.default, deadline=None, print_blob=True)
settings.load_profile("patient")
