"""Ranger: rectified Adam, look-ahead, gradient centralisation (Wright 2019), from ``pytorch_optimizer``."""

from __future__ import annotations

from typing import Any

from pytorch_optimizer import Ranger as _Ranger


class Ranger(_Ranger):
    """Ranger that stands still until the variance of the gradients can be estimated.

    In its first five steps or so RAdam has no adaptive step. Version 4.1 of ``pytorch_optimizer`` marks these steps with a step size
    of -lr, which its Ranger then takes: five steps *up* the gradient, unscaled, from which a run may not come back. Here
    they only gather the moments, as in the authors' implementation of RAdam (Liu et al. 2020).
    """

    @staticmethod
    def get_rectify_step_size(*args: Any, **kwargs: Any) -> tuple[float, float]:
        """Step size (0 instead of a negative one) and length of the approximated moving average."""
        step_size, length = _Ranger.get_rectify_step_size(*args, **kwargs)
        return max(step_size, 0.0), length
