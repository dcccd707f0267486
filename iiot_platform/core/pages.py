"""Addresses of Dagster's pages, and what a line is called there."""

import hashlib
import keyword
import re
from typing import Final
from urllib.parse import quote

from iiot_platform.core.clock import partition_key

_VALID: Final = re.compile(r"[A-Za-z0-9_]{1,80}")
_INVALID: Final = re.compile(r"[^A-Za-z0-9_]+")
_RESERVED: Final = {
    *("context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict"),
    *("output_arg_dict", "int", "str", "float", "bool", "input", "output", "type", "default"),
    *keyword.kwlist,
}
_KEPT: Final = 60
_UNREACHABLE: Final = frozenset('%"')
"""Dagster's pages decode a `%` of an address twice, and quote keys in selections."""


def dagster_name(line: str) -> str:
    """The valid name of a line: itself where that is valid, else its letters and a hash."""
    if _VALID.fullmatch(line) and line not in _RESERVED:
        return line
    digest = hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    kept = _INVALID.sub("_", line).strip("_")[:_KEPT]
    return f"{kept}_{digest}" if kept else f"line_{digest}"


def asset_prefix(line: str) -> str:
    """What the keys of a line's assets begin with.

    That is its own name, which is all that a dashboard knows of it, but where Dagster's pages
    could not be reached by it.
    """
    unreachable = line in {".", ".."} or _UNREACHABLE & set(line)
    return dagster_name(line) if unreachable else line


def run_page(url: str, run_id: str) -> str:
    """The page of a run, below the address of Dagster's pages."""
    return f"{url}/runs/{quote(run_id, safe='')}"


def partition_page(url: str, line: str, table: str, hour: int) -> str:
    """The page of an hour of a line's table, likewise."""
    key = quote(partition_key(hour), safe="")
    prefix = quote(asset_prefix(line), safe="")
    return f"{url}/assets/{prefix}/{table}?view=partitions&partition={key}"
