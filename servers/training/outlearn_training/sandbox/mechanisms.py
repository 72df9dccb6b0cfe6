"""What keeps agents' methods in their place on this system, and whether that is enough to run them."""

from collections.abc import Collection
from typing import Literal

from outlearn.errors import PermissionDeniedError
from outlearn_training.sandbox.bubblewrap import has_bubblewrap
from outlearn_training.sandbox.landlock import landlock_version
from outlearn_training.sandbox.seccomp import has_seccomp
from outlearn_training.settings import TrainingSettings

Mechanism = Literal["bubblewrap", "landlock", "seccomp"]


def find_mechanisms(settings: TrainingSettings) -> tuple[Mechanism, ...]:
    """What this system has. Bubblewrap is tried, as it needs rights that containers and some systems withhold."""
    found: dict[Mechanism, bool] = {
        "bubblewrap": settings.bubblewrap and has_bubblewrap(settings.home),
        "landlock": landlock_version() > 0,
        "seccomp": has_seccomp(),
    }
    return tuple(name for name, there in found.items() if there)


def check_confinement(settings: TrainingSettings, mechanisms: Collection[Mechanism]) -> None:
    """Raises PermissionDeniedError where agents' own methods must not run: Landlock guards files, seccomp the rest."""
    if not {"landlock", "seccomp"} <= set(mechanisms) and not settings.unsafe_no_sandbox:
        raise PermissionDeniedError(
            "this server runs registered methods only, see `list_methods`: its system cannot confine yours (it needs "
            f"Linux with Landlock and seccomp, and has {describe_mechanisms(mechanisms)!r}). The operator may start it "
            "with --unsafe-no-sandbox, and the receipts then say so"
        )


def describe_mechanisms(mechanisms: Collection[Mechanism]) -> str:
    """Such as "bubblewrap+landlock+seccomp", or "none"."""
    return "+".join(mechanisms) or "none"
