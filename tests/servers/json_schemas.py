"""Has `jsonschema` do without its checks of IRIs, which nothing here has.

Their grammar is read where the library is imported: three seconds in every worker.
"""

import sys


def leave_out_iris() -> None:
    """Before the first import of it, in this process."""
    sys.modules.setdefault("rfc3987_syntax", None)
