"""A step that a CUDA graph repeats: one launch in the place of the hundreds that the host would make for each token."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Captured:
    """Runs a step again and again; on a GPU it is captured once, and then replayed. Elsewhere it is simply run.

    Args:
        step: Reads and writes the same tensors each time, of the same shapes; its state lies on the device, none of it in Python,
            and it never waits for the device.
        device: Where the tensors lie.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step = step
        self._is_on_gpu = device.type == "cuda"
        self._is_warm = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Makes one step."""
        if not self._is_on_gpu:
            self._step()
        elif not self._is_warm:
            self._run_aside()
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._step()  # recorded, not run
            self._graph.replay()

    def _run_aside(self) -> None:
        """A first step on a stream of its own, as capturing asks for: libraries make their workspaces in it."""
        stream, ours = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(ours)
        with torch.cuda.stream(stream):
            self._step()
        ours.wait_stream(stream)
        self._is_warm = True

    def forget(self) -> None:
        """The step's tensors have been replaced by others: what was captured is of no use any more."""
        self._is_warm, self._graph = False, None
