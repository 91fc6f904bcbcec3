"""Moved to mirror.pipeline; removed soon."""

import sys

from mirror import pipeline

sys.modules[__name__] = pipeline
