"""The tables of a team's ledger. Money is in nano-dollars: whole numbers, so that sums are exact."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, String, Table

metadata = MetaData()
calls = Table(
    "calls",
    metadata,
    Column("call", Integer, primary_key=True, autoincrement=True),
    Column("agent", String(32), nullable=False, index=True),
    Column("model", String(100), nullable=False),
    Column("nanodollars", BigInteger, nullable=False, comment="At worst."),
    Column("tokens", BigInteger, nullable=False, comment="At worst."),
    Column("spent_nanodollars", BigInteger),
    Column("spent_tokens", BigInteger),
    Column("started_at", Float, nullable=False, comment="Unix time in seconds."),
    Column("ended_at", Float, comment="None: under way."),
    Column("is_lost", Boolean, nullable=False, comment="Its process died; it counts as its worst."),
    sqlite_autoincrement=True,
)
holds = Table(
    "holds",
    metadata,
    Column("agent", String(32), primary_key=True),
    Column("nanodollars", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
)
waits = Table(
    "waits",
    metadata,
    Column("agent", String(32), primary_key=True, comment="Waits until others free what they have set aside."),
)
limits = Table(
    "limits",
    metadata,
    Column("scope", String(8), primary_key=True),
    Column("resource", String(20), primary_key=True),
    Column("amount", Float, nullable=False),
)
shifts = Table(
    "shifts",
    metadata,
    Column("shift", Integer, primary_key=True, autoincrement=True),
    Column("agent", String(32), nullable=False, index=True),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False, comment="When its process last said that it is at work."),
)
