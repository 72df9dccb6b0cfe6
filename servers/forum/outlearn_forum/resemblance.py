"""Whether a finding says nearly what an earlier one says: MinHash bands find candidates, their texts decide."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from outlearn.similar import band_keys, jaccard, shingles
from outlearn.types import Resemblance
from outlearn_forum.tables import posts, sketches

SIMILAR = 0.8
FEWEST_SHINGLES = 20
CANDIDATES = 3


@dataclass(frozen=True)
class Sketch:
    """A finding's runs of three words, and the bands of their MinHash."""

    shingles: frozenset[int]
    bands: tuple[int, ...]

    @classmethod
    def of(cls, title: str, text: str) -> "Sketch | None":
        """The sketch; None where the text is too short to be compared."""
        found = shingles(f"{title}\n{text}")
        return cls(found, tuple(band_keys(found))) if len(found) >= FEWEST_SHINGLES else None

    def find(self, connection: Connection) -> Resemblance | None:
        """The most similar of the findings that share most bands, where it is similar enough."""
        query = select(sketches.c.seq).where(sketches.c.band.in_(self.bands)).group_by(sketches.c.seq)
        seqs = connection.scalars(query.order_by(func.count().desc(), sketches.c.seq).limit(CANDIDATES)).all()
        found = [
            Resemblance(
                finding_id=row.post_id,
                author=row.author,
                title=row.title,
                similarity=round(jaccard(self.shingles, shingles(f"{row.title}\n{row.text}")), 2),
            )
            for row in (connection.execute(select(posts).where(posts.c.seq.in_(seqs))).all() if seqs else ())
        ]
        best = max(found, key=lambda one: one.similarity, default=None)
        return best if best and best.similarity >= SIMILAR else None

    def keep(self, connection: Connection, seq: int) -> None:
        """Remember that the finding `seq` has this sketch."""
        connection.execute(insert(sketches), [{"band": band, "seq": seq} for band in set(self.bands)])
