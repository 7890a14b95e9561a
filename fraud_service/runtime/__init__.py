"""Everything that knows Quix: the application, its state, batches, health and metrics."""

import warnings
from contextlib import suppress

# What Quix brings warns on every start of its own imports, and turns its warnings on as it is loaded: so it is loaded
# here, and they are turned off before Quix is.
with suppress(ImportError):
    from authlib.deprecate import AuthlibDeprecationWarning

    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
