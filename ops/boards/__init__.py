"""The dashboards: one file each. Every panel has queries, a unit and a description."""

from __future__ import annotations

from typing import Final

from boards.business import BUSINESS
from boards.models import MODELS
from boards.overview import OVERVIEW
from boards.runtime import RUNTIME

BOARDS: Final = (OVERVIEW, MODELS, RUNTIME, BUSINESS)
