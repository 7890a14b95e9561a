"""Run a stream on Quix: the application, its state, batches, health checks and metrics."""

import warnings
from contextlib import suppress

# A dependency of Quix warns about its own imports, and turns these warnings on when it is loaded. So load it first.
with suppress(ImportError):
    from authlib.deprecate import AuthlibDeprecationWarning

    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
