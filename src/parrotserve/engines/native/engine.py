"""The native engine as seen by the service: a process that runs one model on this machine's CPU."""

import sys

from parrotserve.engines.native.settings import Launch, NativeSettings, usable_cores
from parrotserve.engines.process import ProcessEngine
from parrotserve.ids import EngineId
from parrotserve.models.files import ModelFiles

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Read by the libraries behind NumPy only once, when it is imported."""


class NativeEngine(ProcessEngine):
    """Runs the model in `files`, under the name `model`."""

    def __init__(
        self,
        id: EngineId,  # noqa: A002 - the contract's name
        model: str,
        files: ModelFiles,
        settings: NativeSettings | None = None,
    ) -> None:
        settings = settings or NativeSettings()
        threads = settings.threads or usable_cores()
        super().__init__(
            id,
            [sys.executable, "-P", "-m", "parrotserve.engines.native"],  # -P: import nothing from the working folder
            Launch(model=model, path=str(files.path.absolute()), format=files.format, settings=settings),
            env={name: str(threads) for name in _THREAD_VARIABLES},
        )
