"""Run the service as a later release with another profile schema: `python -m faults.upgraded score`."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path

NAME = "fraud_service.domain.profile"


def release() -> None:
    """Replace our profile module with one of the next schema, before the first import of it."""
    spec = find_spec(NAME)
    ours = Path(spec.origin).read_text(encoding="utf-8")
    theirs = re.sub(
        r"^SCHEMA: Final = (\d+)$", lambda found: f"SCHEMA: Final = {int(found[1]) + 1}", ours, flags=re.MULTILINE
    )
    assert theirs != ours, "profile.py has no line `SCHEMA: Final = NUMBER`"
    sys.modules[NAME] = module = module_from_spec(spec)
    exec(compile(theirs, spec.origin, "exec"), module.__dict__)  # noqa: S102 - our own source, one number changed


if __name__ == "__main__":
    release()
    from fraud_service.cli import main

    sys.exit(main())
