"""Signatures over pydantic models, of their JSON, with a key for each purpose derived from the vault's.

`Signer` (HMAC-SHA256) is for what stays among those who may read the vault; what `PublicSigner` (Ed25519) signs,
everybody can check with the public key, and nobody can forge with it.
"""

import hashlib
import hmac
import json
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import IntegrityError, OutdatedError
from outlearn.files import create_once
from outlearn.hints import problems

KEY_BYTES = 32
KEY_FILE = "signing.key"


class Signed(BaseModel):
    """A value that is signed. Where fields come, go or change their meaning, `VERSION` is raised: what was signed
    before then says that it is old, and does not look forged."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    VERSION: ClassVar[int] = 1
    schema_version: int = Field(0, description="Of the fields; 0 before there is a signature.")
    signature: str = ""


Model = TypeVar("Model", bound=Signed)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces; NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class Signer:
    """Signs and checks models for one `purpose` (such as "receipt")."""

    def __init__(self, master_key: bytes, purpose: str) -> None:
        self._key = _derive(master_key, purpose)

    @classmethod
    def from_vault(cls, vault: Path, purpose: str) -> "Signer":
        """Use the vault's key file, made on first use and readable by its owner only."""
        return cls(_master_key(vault), purpose)

    def sign(self, model: Model) -> Model:
        """Return a copy of `model` with its version and signature."""
        model = _with_version(model)
        return model.model_copy(update={"signature": self._digest(model)})

    def check(self, model: Signed) -> None:
        """Raises IntegrityError unless `model.signature` was made by this key for exactly these fields."""
        if not hmac.compare_digest(model.signature.encode(), self._digest(model).encode()):
            raise _wrong(model)

    def _digest(self, model: Signed) -> str:
        fields = model.model_dump_json(exclude={"signature"})  # quicker than canonical JSON, and never leaves the vault
        return hmac.new(self._key, f"{type(model).__name__}\0{fields}".encode(), hashlib.sha256).hexdigest()


class PublicSigner:
    """Signs models for one `purpose` (such as "result"); `check_public` checks them."""

    def __init__(self, master_key: bytes, purpose: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(_derive(master_key, purpose))

    @classmethod
    def from_vault(cls, vault: Path, purpose: str) -> "PublicSigner":
        """Use the vault's key file, made on first use and readable by its owner only."""
        return cls(_master_key(vault), purpose)

    @cached_property
    def public_key(self) -> str:
        """For `check_public`: 64 hexadecimal digits."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, model: Model) -> Model:
        """Return a copy of `model` with its version and signature."""
        model = _with_version(model)
        return model.model_copy(update={"signature": self._key.sign(_payload(model)).hex()})


def check_public(model: Signed, public_key: str) -> None:
    """Raises IntegrityError unless the owner of `public_key` signed exactly these fields."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(model.signature), _payload(model))
    except (InvalidSignature, ValueError):
        raise _wrong(model) from None


def parse_signed(kind: type[Model], data: bytes, what: str, again: str) -> Model:
    """What stands in a file, its signature yet to be checked. `what` it is, and how it is made `again`, is for errors.

    Raises:
        OutdatedError: it says that another version of outlearn made it.
        IntegrityError: it is damaged.
    """
    try:
        model = kind.model_validate_json(data)
    except ValidationError as error:
        _refuse_version(_version_in(data, kind.VERSION), kind, what, again)  # which may have had other fields
        raise IntegrityError(f"{what} is damaged: {problems(error)}") from error
    _refuse_version(model.schema_version, kind, what, again)
    return model


def has_key(vault: Path) -> bool:
    """Whether anything can have been signed with the vault's key."""
    return (vault / KEY_FILE).exists()


def secret_name(vault: Path, purpose: str) -> str:
    """16 hexadecimal digits that only those know who may read the vault, always the same ones."""
    return _derive(_master_key(vault), f"name of {purpose}").hex()[:16]


def _master_key(vault: Path) -> bytes:
    vault.mkdir(parents=True, exist_ok=True, mode=0o700)
    return create_once(vault / KEY_FILE, secrets.token_bytes(KEY_BYTES))


def _derive(master_key: bytes, purpose: str) -> bytes:
    if len(master_key) < KEY_BYTES:
        raise IntegrityError(f"the signing key has {len(master_key)} bytes, not {KEY_BYTES}; delete it to renew it")
    return hmac.digest(master_key, purpose.encode(), "sha256")


def _with_version(model: Model) -> Model:
    return model.model_copy(update={"schema_version": model.VERSION})


def _version_in(data: bytes, default: int) -> int:
    with suppress(ValueError, RecursionError):
        found = json.loads(data)
        version = found.get("schema_version") if isinstance(found, dict) else None
        return version if isinstance(version, int) else default
    return default


def _refuse_version(version: int, kind: type[Signed], what: str, again: str) -> None:
    if version < kind.VERSION:
        raise OutdatedError(f"{what} was made by an older version of outlearn (it has version {version!r}); {again}")
    if version > kind.VERSION:
        raise OutdatedError(f"{what} was made by a newer version of outlearn (it has version {version!r}); update it")


def _payload(model: Signed) -> bytes:
    return type(model).__name__.encode() + b"\0" + canonical_json(model.model_dump(mode="json", exclude={"signature"}))


def _wrong(model: Signed) -> IntegrityError:
    return IntegrityError(f"{type(model).__name__} has a wrong signature: it was changed, or another vault made it")
