"""The tables of the issuer. Codes, tokens and cookies are kept as SHA-256 digests; what signs is sealed."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Integer, String, Table, Text, UniqueConstraint

from haneul.identity.tables import metadata

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("algorithm", String(8), nullable=False),
    Column("sealed", Text, nullable=False),
    Column("active_from", DateTime(timezone=True), nullable=False),
)

clients = Table(
    "clients",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("hash", String(200), nullable=False),
    # A JSON list.
    Column("redirect_uris", Text, nullable=False),
    Column("algorithm", String(8), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)

sign_on_secrets = Table(
    "sign_on_secrets",
    metadata,
    Column("person", ForeignKey("people.name"), primary_key=True),
    Column("hash", String(200), nullable=False),
    # Made by an administrator and good for one use until then; null for one that its owner chose.
    Column("expires", DateTime(timezone=True)),
)

attempts = Table(
    "attempts",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("ends", DateTime(timezone=True), nullable=False, index=True),
)

sign_ons = Table(
    "sign_ons",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("person", ForeignKey("people.name"), nullable=False, index=True),
    Column("auth_time", DateTime(timezone=True), nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False, index=True),
)

codes = Table(
    "codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("client", String(64), nullable=False),
    Column("redirect_uri", String(2000), nullable=False),
    Column("scope", String(200), nullable=False),
    Column("nonce", String(200), nullable=False),
    Column("challenge", String(128), nullable=False),
    Column("person", ForeignKey("people.name"), nullable=False),
    Column("auth_time", DateTime(timezone=True), nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False, index=True),
    # The session that was made of the code: it is good for one.
    Column("session", String(32)),
)

device_codes = Table(
    "device_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user_code", String(16), nullable=False, unique=True),
    Column("client", String(64), nullable=False),
    Column("scope", String(200), nullable=False),
    Column("source", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("person", ForeignKey("people.name")),
    Column("auth_time", DateTime(timezone=True)),
    Column("interval", Integer, nullable=False),
    Column("polled", DateTime(timezone=True)),
    Column("expires", DateTime(timezone=True), nullable=False, index=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("person", ForeignKey("people.name"), nullable=False, index=True),
    Column("client", String(64), nullable=False),
    Column("scope", String(200), nullable=False),
    Column("source", String(64), nullable=False),
    Column("agent", String(200), nullable=False),
    Column("auth_time", DateTime(timezone=True), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False, index=True),
    Column("ended", Boolean, nullable=False),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("session", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("expires", DateTime(timezone=True), nullable=False),
    Column("used", Boolean, nullable=False),
)

provider_links = Table(
    "provider_links",
    metadata,
    Column("person", ForeignKey("people.name"), primary_key=True),
    Column("issuer", String(500), nullable=False),
    Column("subject", String(255), nullable=False),
    # The provider's refresh token, sealed; null before the first sign-on and after a refusal.
    Column("sealed", Text),
    # When it was asked last, and when it said last that the person is still there.
    Column("asked", DateTime(timezone=True), nullable=False),
    Column("confirmed", DateTime(timezone=True), nullable=False),
    Column("refused", Boolean, nullable=False),
    UniqueConstraint("issuer", "subject"),
)

provider_requests = Table(
    "provider_requests",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("browser", String(64), nullable=False),
    Column("nonce", String(64), nullable=False),
    Column("verifier", String(128), nullable=False),
    Column("page", String(16), nullable=False),
    Column("query", Text, nullable=False),
    Column("expires", DateTime(timezone=True), nullable=False, index=True),
)
