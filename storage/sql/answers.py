"""Answers bounded as they are made: the engine writes into a pipe, of which so many bytes are read."""

import os
import threading

_CHUNK_BYTES = 1 << 20


class BoundedPipe:
    """A pipe that takes ``most_bytes``; whoever writes more gets an error of the kernel (EPIPE).

    ``path`` is where to write. Read by a thread of its own, from the beginning.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._writing}"
        self._chunks: list[bytes] = []
        self.overflowed = False
        self._reader = threading.Thread(target=self._read, name="answer", daemon=True)
        self._reader.start()

    def finish(self) -> bytes:
        """What was written; call it once, when the writer has ended. Nothing if there was too much."""
        os.close(self._writing)
        self._reader.join()
        body = b"" if self.overflowed else b"".join(self._chunks)
        self._chunks.clear()
        return body

    def _read(self) -> None:
        taken = 0
        try:
            while chunk := os.read(self._reading, _CHUNK_BYTES):
                taken += len(chunk)
                if taken > self._most_bytes:
                    self.overflowed = True
                    self._chunks.clear()
                    return
                self._chunks.append(chunk)
        finally:
            os.close(self._reading)
