"""One thread with one event loop, shared by all sources that are written for asyncio."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final

TURN_S: Final = 5.0


class EventLoopThread:
    """Starts with its first task and ends with its last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks = 0

    def submit(self, task: Coroutine[Any, Any, None], name: str) -> "Future[None]":
        """Run a task; the future is its result, and cancels it."""
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(loop,), name="asyncio", daemon=True
                )
                self._thread.start()
            self._tasks += 1
            return asyncio.run_coroutine_threadsafe(self._counted(task, name), self._loop)

    def turns(self, within_s: float = TURN_S) -> bool:
        """True where the loop does what it is asked to within some seconds."""
        turned = threading.Event()
        with self._lock:
            if self._loop is None:
                return False
            self._loop.call_soon_threadsafe(turned.set)
        return turned.wait(within_s)

    async def _counted(self, task: Coroutine[Any, Any, None], name: str) -> None:
        current = asyncio.current_task()
        if current is not None:
            current.set_name(name)
        try:
            await task
        finally:
            with self._lock:
                self._tasks -= 1
                if not self._tasks and self._loop is not None:
                    self._loop.call_soon(self._loop.stop)
                    self._loop = self._thread = None

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            loop.close()
