"""The Grafana dashboards as code; every name in them comes from the declared tables."""

import warnings

with warnings.catch_warnings():
    # The SDK warns at import that it prefers its v2 schema; the classic one loads everywhere.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard as _  # noqa: F401  # for its warning
    from grafana_foundation_sdk.builders import table as _table  # noqa: F401  # likewise
    from grafana_foundation_sdk.builders import timeseries as _timeseries  # noqa: F401  # likewise
