"""The number of the format that a model's files are written in, and the numbers that can still be read."""

from __future__ import annotations

# 1: version 0.1.0. 2: fields that came later may stand beside those of 1; a reader takes their defaults when absent.
FORMAT = 2
READS = (FORMAT, FORMAT - 1)
