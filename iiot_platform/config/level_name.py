"""Names that are one level of a topic."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def level(name: str) -> str:
    """A name that is one level of a topic and a tag in a database.

    Raises:
        ValueError: it can not be both.
    """
    if not name or name != name.strip():
        raise ValueError("should be a name without blanks around it")
    if CONTROL.search(name) or set(name) & set("/+#\\") or name.startswith("$"):
        raise ValueError(
            "should not contain '/', '+', '#', '\\' or control characters, nor start with '$'"
        )
    return name


LevelName = Annotated[str, AfterValidator(level)]
