"""Families of attacks. An attack is a named function that gets an empty folder and says whether it was held off."""

from collections.abc import Callable, Iterator
from pathlib import Path

from measure import Figure

Attack = Callable[[Path], "bool | Figure"]


def outcome(name: str, held: bool) -> Figure:
    """What an attack that either gets through or does not came to: 1 or 0 successes, of which none are allowed."""
    return Figure(name, float(not held), 0.0)


class Family(dict[str, Attack]):
    """Attacks by name, in the order in which they were written down."""

    def __call__(self, attack: Attack) -> Attack:
        """Add an attack, as a decorator."""
        self[attack.__name__] = attack
        return attack

    def run(self, folder: Path) -> Iterator[Figure]:
        """Make every attack, each in a folder of its own."""
        for name, attack in self.items():
            place = folder / name
            place.mkdir(parents=True)
            found = attack(place)
            yield found if isinstance(found, Figure) else outcome(name, found)
