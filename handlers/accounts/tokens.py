"""Access tokens (JWT, RFC 7519, HS256) and refresh tokens (opaque, RFC 6749 section 1.5)."""

import functools
import hashlib
import secrets
import time
from typing import NamedTuple

import jwt

REFRESH_TOKEN_PREFIX = "brt_"  # noqa: S105 - lets secret scanners and the log's redaction find one
CACHED_TOKENS = 4096  # some 3 MB: a client sends the same one again and again, and a forged one never turns genuine
LONGEST_TOKEN = 1024  # characters, ours have some 300: a header could fill the cache with 64 KiB each, a form with more
CLAIMS = ["sub", "sid", "iat", "exp", "iss", "aud"]


class AccessToken(NamedTuple):
    account_id: str
    session_id: str
    expires_at: int  # Unix seconds


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
        claims = {
            "sub": account_id,
            "sid": session_id,
            "iat": now,
            "exp": now + self.ttl,
            "iss": self.issuer,
            "aud": self.issuer,
        }
        return jwt.encode(claims, self.keys[self.kid], algorithm="HS256", headers={"kid": self.kid})

    def verify(self, token: str) -> AccessToken | None:
        """What the token says, or None when it is not one of ours, forged or expired."""
        verified = self._verified(token) if len(token) <= LONGEST_TOKEN else None
        return verified if verified and verified.expires_at > time.time() else None

    def has_signed(self, token: str) -> bool:
        """Whether the token is one of ours, expired or not."""
        return len(token) <= LONGEST_TOKEN and self._verified(token) is not None

    def _verify(self, token: str) -> AccessToken | None:
        try:
            key = self.keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                audience=self.issuer,
                issuer=self.issuer,
                # iat isn't compared: another instance's clock may be a moment ahead; exp is, each time that it is used
                options={"require": CLAIMS, "verify_iat": False, "verify_exp": False},
            )
            return AccessToken(claims["sub"], claims["sid"], int(claims["exp"]))
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None


def key_id(key: str) -> str:
    """The `kid` of a key: tells keys apart and nothing about them."""
    return hashlib.sha256(b"kid:" + key.encode()).hexdigest()[:8]


def new_refresh_token() -> str:
    return REFRESH_TOKEN_PREFIX + secrets.token_urlsafe(32)


def refresh_token_hash(token: str) -> str:
    """What the database keeps of a refresh token (hexadecimal); 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()
