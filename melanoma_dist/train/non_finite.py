"""Skips steps whose gradient is not finite: they leave no trace in weights, moments and running statistics.

DistributedDataParallel gives every rank the same gradient, so all ranks skip the same steps without communication. The
decision stays on the device, so that no step waits for it. Fused optimizers read it there from the attributes
``grad_scale`` and ``found_inf``, which PyTorch's GradScaler sets on them too, and then change nothing.
"""

from __future__ import annotations

import torch
from torch import nn

from melanoma_dist.errors import TrainingError


class NonFiniteGuard:
    """Takes the optimizer steps of one rank, and skips those that are not finite."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
        """``optimizer`` must be a fused one."""
        self._optimizer = optimizer
        self._statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self._before: torch.Tensor | None = None
        # In this epoch: how many steps were skipped, and the last of them, counted over the whole training.
        self._count = torch.zeros((), dtype=torch.int64, device=device)
        self._last = torch.full((), -1, dtype=torch.int64, device=device)

    def begin(self) -> None:
        """Remember the running statistics, before the forward passes of a step change them."""
        self._before = self._flat()

    def take(self, norm: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Take step ``number``, or skip it if the ``norm`` of its gradient is not finite. Returns whether it did."""
        skipped = ~norm.isfinite()
        self._optimizer.grad_scale, self._optimizer.found_inf = None, skipped.float()  # type: ignore[attr-defined]
        self._optimizer.step()
        self._restore(skipped)
        self._count += skipped
        self._last.copy_(torch.where(skipped, number, self._last))  # in place: a recorded step knows the tensor
        return skipped

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what ``take`` changes beside model and optimizer, by name."""
        return {"skipped_steps": self._count, "last_skipped": self._last}

    def count(self) -> int:
        """How many steps were skipped since ``reset``."""
        return int(self._count)

    def require(self, most: int) -> None:
        """Raise TrainingError, on every rank alike, if more than ``most`` steps were skipped since ``reset``."""
        if (count := self.count()) > most:
            raise TrainingError(
                f"{count} steps of one epoch, lastly step {int(self._last) + 1}, were skipped: their gradient is not "
                f"finite (NaN or infinity). At most {most} may be (--max-skipped-steps, and not all of an epoch). "
                "Lower --lr, lengthen --warmup-epochs, or lower --clip-norm."
            )

    def reset(self) -> None:
        """Count from zero, for a new epoch."""
        self._count.zero_()
        self._last.fill_(-1)

    def state_dict(self) -> dict[str, int]:
        """Return plain values, for a checkpoint; the same on every rank."""
        return {"count": self.count(), "last": int(self._last)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore what ``state_dict`` returned."""
        self._count.fill_(state["count"])
        self._last.fill_(state["last"])

    def _flat(self) -> torch.Tensor | None:
        """All running statistics in one tensor: few kernels, whatever their number."""
        return torch.cat([each.flatten() for each in self._statistics]) if self._statistics else None

    def _restore(self, skipped: torch.Tensor) -> None:
        """Restore the statistics where the step was skipped."""
        after = self._flat()
        before, self._before = self._before, None
        if after is None or before is None:
            return
        values = torch.where(skipped, before, after).split([each.numel() for each in self._statistics])
        torch._foreach_copy_(
            self._statistics, [part.view_as(each) for part, each in zip(values, self._statistics, strict=True)]
        )
