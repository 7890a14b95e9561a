"""The dashboards: one file each, every panel with its queries, its unit and what it tells."""

from __future__ import annotations

from typing import Final

from boards.business import BUSINESS
from boards.models import MODELS
from boards.overview import OVERVIEW
from boards.runtime import RUNTIME

BOARDS: Final = (OVERVIEW, MODELS, RUNTIME, BUSINESS)
