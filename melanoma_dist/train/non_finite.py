"""Steps whose gradient is not finite are skipped: they leave no trace in weights, moments and running statistics.

DistributedDataParallel gives every rank the same gradient, so all ranks skip the same steps without a word. The verdict
stays on the device, so that no step waits for it: fused optimizers take it there, by the names (``grad_scale``,
``found_inf``) under which PyTorch's gradient scaler gives it to them, and then change nothing.
"""

from __future__ import annotations

import torch
from torch import nn

from melanoma_dist.errors import TrainingError


class NonFiniteGuard:
    """Takes the steps of one rank, and skips those that are not finite."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
        """``optimizer`` is a fused one."""
        self._optimizer = optimizer
        self._statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._before: torch.Tensor | None = None
        # In this epoch: how many steps were skipped, and the last of them, counted over the whole training.
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._last = torch.full((), -1, dtype=torch.int64, device=device)

    def begin(self) -> None:
        """Remember what the forward passes of a step will change."""
        self._before = self._flat()

    def take(self, norm: torch.Tensor, number: int) -> torch.Tensor:
        """Take step ``number`` with gradients of that norm, or skip it. Returns whether it was skipped, a scalar."""
        skipped = ~norm.isfinite()
        self._optimizer.grad_scale, self._optimizer.found_inf = None, skipped.float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._restore(skipped)
        self._count += skipped
        self._last = torch.where(skipped, number, self._last)
        return skipped

    def count(self) -> int:
        """How many steps were skipped since ``forget``."""
        return int(self._count)

    def require(self, most: int) -> None:
        """Raise TrainingError, on every rank alike, if more than ``most`` steps were skipped since ``forget``."""
        if (count := self.count()) > most:
            raise TrainingError(
                f"The gradient of {count} steps of one epoch, lastly of step {int(self._last) + 1}, is not finite (NaN "
                f"or infinity), and they were skipped; at most {most} may be (--max-skipped-steps, and not all of an "
                "epoch). Lower --lr, lengthen --warmup-epochs, or lower --clip-norm."
            )

    def forget(self) -> None:
        """A new epoch begins."""
        self._count.zero_()
        self._last.fill_(-1)

    def state_dict(self) -> dict[str, int]:
        """Plain values, for a checkpoint; the same on every rank."""
        return {"count": self.count(), "last": int(self._last)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take over what ``state_dict`` gave."""
        self._count.fill_(state["count"])
        self._last.fill_(state["last"])

    def _flat(self) -> torch.Tensor | None:
        """All running statistics in one tensor: few kernels, whatever their number."""
        return torch.cat([each.flatten() for each in self._statistics]) if self._statistics else None

    def _restore(self, skipped: torch.Tensor) -> None:
        """Where the step was skipped, make the statistics what they were."""
        after = self._flat()
        if after is None or self._before is None:
            return
        kept = torch.where(skipped, self._before, after).split([each.numel() for each in self._statistics])
        torch._foreach_copy_(
            self._statistics, [part.view_as(each) for part, each in zip(kept, self._statistics, strict=True)]
        )
