"""Records steps as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.train.step_graph import Recorder, Replay
from melanoma_dist.world import World

# Before PyTorch 2.15, the allocator keeps a pointer to a graph whose recording failed: such a graph is never deleted.
_FAILED: list[torch.cuda.CUDAGraph] = []


def graph_recorder(hardware: HardwareConfig, world: World) -> Recorder | None:
    """Return the recorder of a rank, or None where it launches kernels one by one: on the CPU, among other ranks.

    Raises ConfigError where the configuration requires a graph that cannot be.
    """
    if world.gpu is not None and world.size == 1 and hardware.cuda_graph != "off":
        return CudaGraphRecorder()
    if hardware.cuda_graph == "on":
        ranks = f"{world.size} ranks on {'the CPU' if world.gpu is None else 'GPUs'} train this fold"
        raise ConfigError.of(
            "cuda_graph", "on", f"needs one GPU for each fold, and {ranks}", "Type --gpus-per-unit 1, or leave it out."
        )
    return None


class CudaGraphRecorder:
    """Records on one stream aside: a capture on the default stream is impossible."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function on that stream, after all work before it and before all work after it."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> Replay:
        """Capture a function. Its replays run on the current stream.

        After a failure, everything computes as before. PyTorch restores the stream itself only since 2.15.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        try:
            # DALI's threads allocate and copy meanwhile. In the default mode, that would end the capture.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                function()
        except RuntimeError:
            _FAILED.append(graph)
            torch.cuda.set_stream(current)
            _renew_generator()
            raise
        return graph.replay


def _renew_generator() -> None:
    """Replace the state of the random generator. Before PyTorch 2.15, that of a failed recording refuses dropout."""
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())
