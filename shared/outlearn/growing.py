"""Files of lines that are only added to."""

import os
from pathlib import Path


def add_line(path: Path, line: bytes, *, mode: int = 0o644) -> None:
    """Add a line, whole or not at all, also where other processes add to the file: a line that a crash or a full disk
    cut short stays a line of its own.

    Raises OSError where there is no room for it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        file = os.open(path, flags, mode)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, mode)
    try:
        size = os.fstat(file).st_size
        whole = size == 0 or os.pread(file, 1, size - 1) == b"\n"
        data = line + b"\n" if whole else b"\n" + line + b"\n"
        if os.write(file, data) < len(data):
            raise OSError(f"no room for a line in {str(path)!r}")
    finally:
        os.close(file)


class NewLines:
    """Reads what was added to a file since the last time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode, self._offset = 0, 0

    def read(self) -> tuple[bool, list[bytes]]:
        """Whole lines, without their ends; True where they are all, as this is the first look, or another file.

        Empty lines are none: who adds while somebody else's line is half there ends that one, too.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116  (asked often)
            anew = status.st_ino != self._inode or status.st_size < self._offset
            if anew:
                self._inode, self._offset = status.st_ino, 0
            if status.st_size == self._offset:
                return anew, []
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            self._inode, self._offset = 0, 0
            return True, []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return anew, [line for line in whole.split(b"\n") if line]
