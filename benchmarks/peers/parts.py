"""What all peers are made of: SQLAlchemy's ORM over aiomysql, redis-py, loguru, PyJWT, and the work on top of them.

Berth's own tables, tokens and keys, so that every subject reads the same rows and does the same work. Only the
framework around it differs.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
import time
import uuid
from base64 import b64decode
from datetime import UTC, datetime

import jwt
import redis.asyncio
from loguru import logger
from sqlalchemy import URL, BigInteger, String, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ENV = os.environ
ACCESS_TTL, REFRESH_TTL, CACHE_TTL = 900, 2592000, 60
KEY = ENV["SECRET_KEY"]


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(64))
    email: Mapped[str] = mapped_column(String(254))
    password_hash: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    last_login_at: Mapped[int | None] = mapped_column(BigInteger)


class Session(Base):
    __tablename__ = "sessions"
    account_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    client: Mapped[str] = mapped_column(String(64))
    user_agent: Mapped[str] = mapped_column(String(512))


class RefreshToken(Base):
    __tablename__ = "refresh_tokens"
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(36))
    session_id: Mapped[str] = mapped_column(String(36))
    expires_at: Mapped[int] = mapped_column(BigInteger)
    spent_at: Mapped[int | None] = mapped_column(BigInteger)


class UnauthorizedError(Exception):
    pass


class Parts:
    """The pool and the client, opened at start."""

    async def open(self) -> None:
        url = URL.create(
            "mysql+aiomysql",
            ENV["MYSQL_USERNAME"],
            ENV["MYSQL_PASSWORD"],
            ENV["MYSQL_HOST"],
            int(ENV["MYSQL_PORT"]),
            ENV["MYSQL_DATABASE"],
        )
        self.engine = create_async_engine(url, pool_size=10, max_overflow=20, pool_recycle=1800)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)
        async with self.session() as db:
            await db.execute(select(1))
        self.redis = None
        if "REDIS_HOST" in ENV:
            self.redis = redis.asyncio.Redis(
                host=ENV["REDIS_HOST"], port=int(ENV["REDIS_PORT"]), db=int(ENV["REDIS_DB"]), max_connections=1000
            )
            await self.redis.ping()

    async def close(self) -> None:
        await self.engine.dispose()
        if self.redis:
            await self.redis.aclose()

    async def authenticate(self, authorization: str | None, encode, decode) -> tuple[object, str]:
        """The account of the access token, from Redis or MySQL. `encode` and `decode`: the framework's own JSON."""
        try:
            claims = jwt.decode(
                (authorization or "").removeprefix("Bearer "), KEY, ["HS256"], audience="berth", issuer="berth"
            )
        except jwt.PyJWTError:
            raise UnauthorizedError from None
        account_id, session_id = claims["sub"], claims["sid"]
        keys = f"peer:{account_id}:account", f"peer:{account_id}:session:{session_id}"
        if self.redis:
            cached, alive = await self.redis.mget(keys)
            if cached and alive:
                return decode(cached), session_id
        query = (
            select(Account)
            .join(Session, Session.account_id == Account.id)
            .where(Session.account_id == account_id, Session.id == session_id, Session.expires_at > now_ms())
        )
        async with self.session() as db:
            row = (await db.execute(query)).scalar_one_or_none()
        if row is None:
            raise UnauthorizedError
        if self.redis:
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.set(keys[0], encode(row), ex=CACHE_TTL).set(keys[1], "1", ex=CACHE_TTL)
                await pipeline.execute()
        return row, session_id

    async def sessions(self, account_id: str, limit: int) -> list[Session]:
        query = (
            select(Session)
            .where(Session.account_id == account_id, Session.expires_at > now_ms())
            .order_by(Session.id.desc())
            .limit(limit + 1)
        )
        async with self.session() as db:
            return list((await db.execute(query)).scalars())

    async def refresh(self, token: str) -> tuple[str, str, Account]:
        """Access token, refresh token, account."""
        digest, now = token_hash(token), now_ms()
        query = (
            select(Account, RefreshToken.session_id)
            .join(RefreshToken, RefreshToken.account_id == Account.id)
            .where(RefreshToken.token_hash == digest, RefreshToken.expires_at > now)
        )
        async with self.session() as db:
            found = (await db.execute(query)).one_or_none()
            if found is None:
                raise UnauthorizedError
            account, session_id = found
            mine = and_(Session.account_id == account.id, Session.id == session_id)
            values = {"last_used_at": now, "expires_at": now + REFRESH_TTL * 1000}
            await db.execute(update(Session).where(mine, Session.expires_at > now).values(values))
            unspent = RefreshToken.token_hash == digest, RefreshToken.spent_at.is_(None)
            if not (await db.execute(update(RefreshToken).where(*unspent).values(spent_at=now))).rowcount:
                await db.execute(delete(Session).where(mine))
                await db.commit()
                raise UnauthorizedError
            token = add_refresh_token(db, account.id, session_id)
            await db.commit()
        return access_token(account.id, session_id), token, account

    async def log_in(self, login: str, password: str, client: str, user_agent: str) -> tuple[str, str, Account]:
        async with self.session() as db:
            query = select(Account).where(Account.username_key == login.casefold())
            account = (await db.execute(query)).scalar_one_or_none()
        if account is None or not await asyncio.to_thread(verify_password, password, account.password_hash):
            raise UnauthorizedError
        now, session_id = now_ms(), str(uuid.uuid4())
        async with self.session() as db:
            await db.execute(update(Account).where(Account.id == account.id).values(last_login_at=now))
            db.add(
                Session(
                    account_id=account.id,
                    id=session_id,
                    created_at=now,
                    last_used_at=now,
                    expires_at=now + REFRESH_TTL * 1000,
                    client=client,
                    user_agent=user_agent,
                )
            )
            token = add_refresh_token(db, account.id, session_id)
            await db.commit()
        return access_token(account.id, session_id), token, account


def add_refresh_token(db: AsyncSession, account_id: str, session_id: str) -> str:
    token = "brt_" + secrets.token_urlsafe(32)
    expires_at = now_ms() + REFRESH_TTL * 1000
    db.add(
        RefreshToken(token_hash=token_hash(token), account_id=account_id, session_id=session_id, expires_at=expires_at)
    )
    return token


def access_token(account_id: str, session_id: str) -> str:
    now = int(time.time())
    claims = {"sub": account_id, "sid": session_id, "iat": now, "exp": now + ACCESS_TTL, "iss": "berth", "aud": "berth"}
    return jwt.encode(claims, KEY, algorithm="HS256", headers={"kid": "peer"})


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def verify_password(password: str, password_hash: str) -> bool:
    """The hash that Berth makes: scrypt with N=2^15, r=8, p=3."""
    _, _, _, salt, key = password_hash.split("$")
    salt, key = b64decode(salt + "=="), b64decode(key + "=")
    return hmac.compare_digest(
        hashlib.scrypt(password.encode(), salt=salt, n=2**15, r=8, p=3, maxmem=64 * 2**20, dklen=32), key
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def utc(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def configure_logs(file: str | None = None) -> None:
    """JSON lines on stdout from loguru's own thread (`enqueue`), and in a file when one is named."""
    logger.remove()
    logger.add(sys.stdout, serialize=True, enqueue=True)
    if file:
        logger.add(file, serialize=True, enqueue=True, rotation="100 MB", retention=1)


def log_request(method: str, path: str, status: int, started: float, *, client: str | None, user_agent: str) -> None:
    logger.bind(
        method=method,
        path=path,
        status=status,
        duration_ms=round((time.perf_counter() - started) * 1000, 3),
        client=client,
        user_agent=user_agent,
        request_id=str(uuid.uuid4()),
    ).info("{} {} {}", method, path, status)
