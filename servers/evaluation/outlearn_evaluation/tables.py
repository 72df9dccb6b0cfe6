"""The ledger's tables: what was asked and answered, by what votes, who nominated what, and which finals began."""

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()
evaluations = Table(
    "evaluations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False),
    Column("against", String(40), nullable=False, default=""),
    Column("agent", String(32), nullable=False),
    Column("task", String(48), nullable=False),
    Column("method", String(300), nullable=False),
    Column("seeds", Integer, nullable=False),
    Column("pgr", Float, nullable=False),
    Column("pgr_se", Float, nullable=False),
    Column("verdict", String(24)),
    Column("at_most", Boolean),
    Column("same_as", String(40)),
    Column("charged", Boolean, nullable=False),
    Column("day", String(10), nullable=False),
    Column("evaluated_at", DateTime, nullable=False),
    UniqueConstraint("run_id", "against"),
    Index("evaluations_by_rank", "task", text("pgr DESC"), "number"),
)
submissions = Table(
    "submissions",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("task", String(48), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("seeds", Integer, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    Column("votes", LargeBinary, nullable=False),
)
nominations = Table(
    "nominations",
    metadata,
    Column("agent", String(32), primary_key=True),
    Column("run_id", String(40), primary_key=True),
)
finals = Table(
    "finals",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("closed_at", DateTime, nullable=False),
)
