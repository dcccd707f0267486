"""How many examples a property is shown, for all of them in one place.

`make test` shows few, and other ones at every run. IIOT_TEST_THOROUGH=1 shows twenty times as many,
and takes the time to shrink what it finds.
"""

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

THOROUGH: Final = os.environ.get("IIOT_TEST_THOROUGH") == "1"
_TIMES: Final = 20 if THOROUGH else 1

# a machine that is busy with something else is no error of the code
# where CI is set, Hypothesis would show the same examples at every run
USUAL: Final = settings(
    max_examples=100 * _TIMES, deadline=None, print_blob=True, derandomize=False
)
"""Where nothing else is said: pure functions of which a hundred examples take a moment.

The bits that decoders, texts and sums keep hang on rare examples, so these stay many.
"""

BROAD: Final = settings(USUAL, max_examples=25 * _TIMES)
"""For examples of many rows each, one of which covers what several small ones do."""

WHOLE: Final = settings(
    USUAL,
    max_examples=3 * _TIMES,
    # shrinking takes minutes
    phases=tuple(Phase) if THOROUGH else (Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""For examples that are engines, with log, tables and ledger of their own."""
