"""Signatures over pydantic models: HMAC-SHA256 over canonical JSON, one derived key for each purpose."""

import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from outlearn.errors import IntegrityError
from outlearn.files import create_once

KEY_BYTES = 32
Model = TypeVar("Model", bound=BaseModel)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Signer:
    """Signs and checks models that have a `signature` field, for one `purpose` (such as "receipt")."""

    def __init__(self, master_key: bytes, purpose: str) -> None:
        if len(master_key) < KEY_BYTES:
            raise IntegrityError(f"the signing key has {len(master_key)} bytes, not {KEY_BYTES}; delete it to renew it")
        self._key = hmac.digest(master_key, purpose.encode(), "sha256")

    @classmethod
    def from_vault(cls, vault: Path, purpose: str) -> "Signer":
        """Use the vault's key file, made on first use and readable by its owner only."""
        vault.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(create_once(vault / "signing.key", secrets.token_bytes(KEY_BYTES)), purpose)

    def sign(self, model: Model) -> Model:
        """Return a copy of `model` with its `signature` filled in."""
        return model.model_copy(update={"signature": self._digest(model)})

    def check(self, model: BaseModel) -> None:
        """Raises IntegrityError unless `model.signature` was made by this key for exactly these fields."""
        signature = getattr(model, "signature", "")
        if not hmac.compare_digest(str(signature).encode(), self._digest(model).encode()):
            raise IntegrityError(
                f"{type(model).__name__} has a wrong signature: it was changed, or another vault made it"
            )

    def _digest(self, model: BaseModel) -> str:
        payload = canonical_json(model.model_dump(mode="json", exclude={"signature"}))
        return hmac.new(self._key, type(model).__name__.encode() + b"\0" + payload, hashlib.sha256).hexdigest()
