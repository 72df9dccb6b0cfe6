"""The artifact store: content-addressed blobs, written atomically, with names that point at them."""

import hashlib
import re
from pathlib import Path
from typing import Protocol

from outlearn.errors import IntegrityError, InvalidInputError, NotFoundError
from outlearn.files import private_folder, write_atomic

DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactStore(Protocol):
    """Where weights, method sources and file snapshots are kept."""

    def put(self, data: bytes, digest: str = "") -> str:
        """Store `data`; return its SHA-256 digest (64 hexadecimal digits). Storing it again costs nothing.

        Args:
            digest: that digest, where the caller has just computed it; of other data, nobody could `get` it.
        """
        ...

    def get(self, digest: str) -> bytes:
        """The data with this digest. Raises NotFoundError, or IntegrityError where it was damaged."""
        ...

    def has(self, digest: str) -> bool:
        """Whether the store holds this digest."""
        ...

    def remove(self, digest: str) -> None:
        """Remove the data with this digest, if it is there. Nobody else may need it."""
        ...


class LocalArtifactStore:
    """An artifact store in a local folder: `root/ab/abcdef...`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._is_ready = False

    def put(self, data: bytes, digest: str = "") -> str:
        digest = digest or hashlib.sha256(data).hexdigest()
        if not self.has(digest):
            if not self._is_ready:
                private_folder(self._root)
                self._is_ready = True
            write_atomic(self._path(digest), data, mode=0o600)
        return digest

    def get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"no artifact {digest!r}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError(f"artifact {digest!r} was damaged on disk; restore it from a backup")
        return data

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise InvalidInputError(f"{digest!r} is not a SHA-256 digest")
        return self._root / digest[:2] / digest
