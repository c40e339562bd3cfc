"""Peers (a) and (b). `PEER=full` is the stack that Berth replaces, `PEER=lean` FastAPI at its best with the same."""

import os
import time
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from parts import Parts, UnauthorizedError, configure_logs, log_request, logger, utc
from pydantic import BaseModel, ConfigDict, Field, field_validator

FULL = os.environ["PEER"] == "full"


class Model(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    @field_validator("created_at", "updated_at", "last_used_at", "expires_at", mode="before", check_fields=False)
    @classmethod
    def time(cls, value: object) -> object:
        return utc(value) if isinstance(value, int) else value


class Account(Model):
    id: str
    username: str
    email: str
    created_at: datetime
    updated_at: datetime


class Session(Model):
    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    client: str
    user_agent: str
    current: bool = False


class Page(BaseModel):
    items: list[Session]
    next: str | None


class Tokens(BaseModel):
    access_token: str
    refresh_token: str
    token_type: str = "Bearer"
    expires_in: int = 900
    account: Account


class Login(BaseModel):
    login: str = Field(min_length=1, max_length=254)
    password: str = Field(max_length=256)


class Refresh(BaseModel):
    refresh_token: str = Field(max_length=256)


@asynccontextmanager
async def lifespan(app: FastAPI):
    configure_logs(os.environ["PEER_LOG_FILE"] if FULL else None)
    app.state.parts = Parts()
    await app.state.parts.open()
    yield
    await app.state.parts.close()
    logger.complete()


app = FastAPI(lifespan=lifespan)


def encode(row: object) -> str:
    return Account.model_validate(row).model_dump_json()


async def authenticate(request: Request) -> tuple[Account, str]:
    parts: Parts = request.app.state.parts
    account, session_id = await parts.authenticate(
        request.headers.get("authorization"), encode, Account.model_validate_json
    )
    return Account.model_validate(account), session_id


async def from_middleware(request: Request) -> tuple[Account, str]:
    return request.state.principal


Principal = Annotated[tuple[Account, str], Depends(from_middleware if FULL else authenticate)]


@app.exception_handler(UnauthorizedError)
async def unauthorized(request: Request, error: UnauthorizedError) -> JSONResponse:
    return JSONResponse({"detail": "unauthorized"}, 401)


@app.get("/health/live")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/v1/auth/me")
async def me(principal: Principal) -> Account:
    return principal[0]


@app.get("/v1/auth/sessions")
async def sessions(request: Request, principal: Principal, limit: int = 20) -> Page:
    account, session_id = principal
    rows = await request.app.state.parts.sessions(account.id, limit)
    items = [Session.model_validate(row) for row in rows[:limit]]
    for item in items:
        item.current = item.id == session_id
    return Page(items=items, next=items[-1].id if len(rows) > limit else None)


@app.post("/v1/auth/refresh")
async def refresh(request: Request, body: Refresh) -> Tokens:
    access, token, account = await request.app.state.parts.refresh(body.refresh_token)
    return Tokens(access_token=access, refresh_token=token, account=Account.model_validate(account))


@app.post("/v1/auth/login")
async def log_in(request: Request, body: Login) -> Tokens:
    access, token, account = await request.app.state.parts.log_in(
        body.login, body.password, request.client.host, request.headers.get("user-agent", "")
    )
    return Tokens(access_token=access, refresh_token=token, account=Account.model_validate(account))


if FULL:

    @app.middleware("http")
    async def check_token(request: Request, call_next):
        if request.url.path.startswith(("/v1/auth/me", "/v1/auth/sessions")):
            try:
                request.state.principal = await authenticate(request)
            except UnauthorizedError as error:
                return await unauthorized(request, error)
        return await call_next(request)

    @app.middleware("http")
    async def record(request: Request, call_next):
        started = time.perf_counter()
        response = await call_next(request)
        agent = request.headers.get("user-agent", "")
        log_request(
            request.method,
            request.url.path,
            response.status_code,
            started,
            client=request.client.host,
            user_agent=agent,
        )
        return response

else:
    from access_log import AccessLog

    app.add_middleware(AccessLog)
