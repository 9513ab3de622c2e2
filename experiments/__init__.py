"""Experiments that run from a checkout."""

import warnings

# Avalanche warns at import when no solver of quadratic programs is installed; only its GEM needs one.
warnings.filterwarnings("ignore", message="no QP solver")
