"""The commitment: a hash over the test labels and the split, published at the start and checkable afterwards."""

import hashlib
import secrets
from pathlib import Path

from outlearn.files import create_once
from outlearn.signing import canonical_json
from outlearn.tasks import load_secret


def commitment(home: Path, task: str) -> str:
    """SHA-256 of a secret nonce, drawn once and kept in the vault, and all that the vault holds of the task."""
    nonce = create_once(home / "vault" / task / "nonce", secrets.token_bytes(32))
    return hashlib.sha256(nonce + canonical_json(load_secret(home, task).model_dump(mode="json"))).hexdigest()
