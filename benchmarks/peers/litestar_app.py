"""Peer (c): Litestar, msgspec Structs as it prefers them."""

from contextlib import asynccontextmanager

from access_log import AccessLog
from litestar import Litestar, Request, Response, get, post
from litestar.di import Provide
from parts import Parts, UnauthorizedError, configure_logs, logger
from structs import Account, Login, Page, Refresh, Tokens, account_of, decode, encode, page_of


@asynccontextmanager
async def lifespan(app: Litestar):
    configure_logs()
    app.state.parts = Parts()
    await app.state.parts.open()
    yield
    await app.state.parts.close()
    logger.complete()


async def authenticate(request: Request) -> tuple[Account, str]:
    row, session_id = await request.app.state.parts.authenticate(request.headers.get("authorization"), encode, decode)
    return account_of(row), session_id


@get("/health/live")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@get("/v1/auth/me")
async def me(principal: tuple) -> Account:
    return principal[0]


@get("/v1/auth/sessions")
async def sessions(request: Request, principal: tuple, limit: int = 20) -> Page:
    account, session_id = principal
    return page_of(await request.app.state.parts.sessions(account.id, limit), session_id, limit)


@post("/v1/auth/refresh", status_code=200)
async def refresh(request: Request, data: Refresh) -> Tokens:
    access, token, account = await request.app.state.parts.refresh(data.refresh_token)
    return Tokens(access, token, account_of(account))


@post("/v1/auth/login", status_code=200)
async def log_in(request: Request, data: Login) -> Tokens:
    access, token, account = await request.app.state.parts.log_in(
        data.login, data.password, request.client.host, request.headers.get("user-agent", "")
    )
    return Tokens(access, token, account_of(account))


def unauthorized(request: Request, error: UnauthorizedError) -> Response:
    return Response({"detail": "unauthorized"}, status_code=401)


app = Litestar(
    [health, me, sessions, refresh, log_in],
    lifespan=[lifespan],
    dependencies={"principal": Provide(authenticate)},
    exception_handlers={UnauthorizedError: unauthorized},
    middleware=[AccessLog],
    openapi_config=None,
    logging_config=None,
)
