"""Signatures over pydantic models, of their JSON, with a key for each purpose derived from the vault's.

`Signer` (HMAC-SHA256) is for what stays among those who may read the vault; what `PublicSigner` (Ed25519) signs,
everybody can check with the public key, and nobody can forge with it.
"""

import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
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
        self._key = _derive(master_key, purpose)

    @classmethod
    def from_vault(cls, vault: Path, purpose: str) -> "Signer":
        """Use the vault's key file, made on first use and readable by its owner only."""
        return cls(_master_key(vault), purpose)

    def sign(self, model: Model) -> Model:
        """Return a copy of `model` with its `signature` filled in."""
        return model.model_copy(update={"signature": self._digest(model)})

    def check(self, model: BaseModel) -> None:
        """Raises IntegrityError unless `model.signature` was made by this key for exactly these fields."""
        if not hmac.compare_digest(_signature(model).encode(), self._digest(model).encode()):
            raise _wrong(model)

    def _digest(self, model: BaseModel) -> str:
        fields = model.model_dump_json(exclude={"signature"})  # quicker than canonical JSON, and never leaves the vault
        return hmac.new(self._key, f"{type(model).__name__}\0{fields}".encode(), hashlib.sha256).hexdigest()


class PublicSigner:
    """Signs models that have a `signature` field, for one `purpose` (such as "result"); `check_public` checks them."""

    def __init__(self, master_key: bytes, purpose: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(_derive(master_key, purpose))

    @classmethod
    def from_vault(cls, vault: Path, purpose: str) -> "PublicSigner":
        """Use the vault's key file, made on first use and readable by its owner only."""
        return cls(_master_key(vault), purpose)

    @property
    def public_key(self) -> str:
        """For `check_public`: 64 hexadecimal digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, model: Model) -> Model:
        """Return a copy of `model` with its `signature` filled in."""
        return model.model_copy(update={"signature": self._key.sign(_payload(model)).hex()})


def check_public(model: BaseModel, public_key: str) -> None:
    """Raises IntegrityError unless the owner of `public_key` signed exactly these fields."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(_signature(model)), _payload(model))
    except (InvalidSignature, ValueError):
        raise _wrong(model) from None


def _master_key(vault: Path) -> bytes:
    vault.mkdir(parents=True, exist_ok=True, mode=0o700)
    return create_once(vault / "signing.key", secrets.token_bytes(KEY_BYTES))


def _derive(master_key: bytes, purpose: str) -> bytes:
    if len(master_key) < KEY_BYTES:
        raise IntegrityError(f"the signing key has {len(master_key)} bytes, not {KEY_BYTES}; delete it to renew it")
    return hmac.digest(master_key, purpose.encode(), "sha256")


def _payload(model: BaseModel) -> bytes:
    return type(model).__name__.encode() + b"\0" + canonical_json(model.model_dump(mode="json", exclude={"signature"}))


def _signature(model: BaseModel) -> str:
    return str(getattr(model, "signature", ""))


def _wrong(model: BaseModel) -> IntegrityError:
    return IntegrityError(f"{type(model).__name__} has a wrong signature: it was changed, or another vault made it")
