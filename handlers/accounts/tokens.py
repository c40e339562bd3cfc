"""Access tokens (JWT, RFC 9068, HS256) and refresh tokens (opaque, RFC 6749 section 1.5)."""

import base64
import binascii
import functools
import hashlib
import hmac
import os
import struct
import time
import uuid
from typing import Annotated, NamedTuple

import jwt
import msgspec
from msgspec import Meta

from infra.base.ids import GivenId, new_id
from infra.base.times import now_ms

REFRESH_TOKEN_PREFIX = "brt_"  # noqa: S105 - lets secret scanners and the log's redaction find one
CACHED_TOKENS = 4096  # some 3 MB: a client sends the same one again and again, and a forged one never turns genuine
JWS = jwt.PyJWS()  # the signature only: what a claim must be, Claims says
LONGEST_TOKEN = 1024  # characters, ours have some 300: a header could fill the cache with 64 KiB each, a form with more
TYPES = {"at+jwt", "application/at+jwt"}  # RFC 9068, section 4: another JWT of the same key is no access token

RANDOM, MAC = 32, 16  # bytes of a refresh token
REFRESH_TOKEN = struct.Struct(f">16s16sQ{RANDOM}s{MAC}s")  # the account's id, the session's, when it was issued

Seconds = Annotated[int, Meta(ge=0, le=2**53)]  # Unix time; an answer's JSON must hold it, too


class Claims(msgspec.Struct, omit_defaults=True):
    """RFC 9068, section 2.2. `iat` isn't compared: another instance's clock may be a moment ahead."""

    sub: GivenId
    sid: GivenId
    jti: str
    iat: Seconds
    exp: Seconds
    iss: str
    aud: str
    nbf: Seconds = 0  # of none of ours


class AccessToken(NamedTuple):
    account_id: str
    session_id: str
    not_before: int  # Unix seconds
    expires_at: int


class RefreshToken(NamedTuple):
    account_id: str
    session_id: str
    issued_at: int  # Unix milliseconds


class TokenKeys:
    """Signs with the first key and verifies with any, so that keys can be replaced without ending a session."""

    def __init__(self, issuer: str, secret_key: str, previous: tuple[str, ...], ttl: int) -> None:
        self.issuer = issuer  # and audience
        self.keys = {key_id(key): key for key in (*reversed(previous), secret_key)}
        self.kid = key_id(secret_key)
        self.ttl = ttl
        self._verified = functools.lru_cache(CACHED_TOKENS)(self._verify)

    def issue(self, account_id: str, session_id: str) -> str:
        now = int(time.time())
        claims = Claims(account_id, session_id, new_id(), now, now + self.ttl, self.issuer, self.issuer)
        headers = {"kid": self.kid, "typ": "at+jwt"}
        return jwt.encode(msgspec.to_builtins(claims), self.keys[self.kid], algorithm="HS256", headers=headers)

    def verify(self, token: str) -> AccessToken | None:
        """What the token says, or None when it is not one of ours, forged or expired."""
        verified = self._verified(token) if len(token) <= LONGEST_TOKEN else None
        return verified if verified and verified.not_before <= time.time() < verified.expires_at else None

    def has_signed(self, token: str) -> bool:
        """Whether the token is one of ours, expired or not."""
        return len(token) <= LONGEST_TOKEN and self._verified(token) is not None

    def new_refresh_token(self, account_id: str, session_id: str) -> str:
        """256 random bits, and of which session they are: a spent one is known for what it is when its row has gone."""
        of = uuid.UUID(account_id).bytes, uuid.UUID(session_id).bytes, now_ms(), os.urandom(RANDOM)
        token = REFRESH_TOKEN.pack(*of, bytes(MAC))
        return text_of(token[:-MAC] + mac_of(token, self.keys[self.kid]))

    def read_refresh_token(self, token: str) -> RefreshToken | None:
        """What it says, spent or not; None when none of the keys has made it."""
        text = token.removeprefix(REFRESH_TOKEN_PREFIX)
        try:
            content = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            account, session, issued_at, _, mac = REFRESH_TOKEN.unpack(content)
        except (ValueError, binascii.Error, struct.error):
            return None
        if text_of(content) != token:  # another text for the same bytes
            return None
        if not any(hmac.compare_digest(mac, mac_of(content, key)) for key in self.keys.values()):
            return None
        return RefreshToken(str(uuid.UUID(bytes=account)), str(uuid.UUID(bytes=session)), issued_at)

    def _verify(self, token: str) -> AccessToken | None:
        """Whatever the time is: what is kept of a token must not depend on a clock that may be set right later."""
        try:
            key = self.keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                return None
            signed = JWS.decode_complete(token, key, algorithms=["HS256"])
            claims = msgspec.json.decode(signed["payload"], type=Claims)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        typed = str(signed["header"].get("typ")).lower() in TYPES
        if not typed or (claims.iss, claims.aud) != (self.issuer, self.issuer):
            return None
        return AccessToken(claims.sub, claims.sid, claims.nbf, claims.exp)


def key_id(key: str) -> str:
    """The `kid` of a key: tells keys apart and nothing about them."""
    return hashlib.sha256(b"kid:" + key.encode()).hexdigest()[:8]


def text_of(refresh_token: bytes) -> str:
    return REFRESH_TOKEN_PREFIX + base64.urlsafe_b64encode(refresh_token).decode().rstrip("=")


def mac_of(refresh_token: bytes, key: str) -> bytes:
    return hmac.digest(key.encode(), b"refresh token\0" + refresh_token[:-MAC], "sha256")[:MAC]


def refresh_token_hash(token: str) -> str:
    """What the database keeps of a refresh token (hexadecimal); 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()
