"""Peer (d): BlackSheep, with msgspec for JSON."""

import msgspec
from access_log import AccessLog
from blacksheep import Application, Content, Request, Response, get, post
from parts import Parts, UnauthorizedError, configure_logs, logger
from structs import Login, Refresh, Tokens, account_of, decode, encode, page_of

server = Application()
parts = Parts()


@server.on_start
async def start(_: Application) -> None:
    configure_logs()
    await parts.open()


@server.on_stop
async def stop(_: Application) -> None:
    await parts.close()
    logger.complete()


def answer(content: object, status: int = 200) -> Response:
    return Response(status, None, Content(b"application/json", msgspec.json.encode(content)))


def header(request: Request, name: bytes) -> str:
    value = request.get_first_header(name)
    return value.decode("latin-1") if value else ""


async def authenticate(request: Request):
    row, session_id = await parts.authenticate(header(request, b"authorization"), encode, decode)
    return account_of(row), session_id


@server.exception_handler(UnauthorizedError)
async def unauthorized(self, request: Request, error: UnauthorizedError) -> Response:
    return answer({"detail": "unauthorized"}, 401)


@get("/health/live")
async def health() -> Response:
    return answer({"status": "ok"})


@get("/v1/auth/me")
async def me(request: Request) -> Response:
    return answer((await authenticate(request))[0])


@get("/v1/auth/sessions")
async def sessions(request: Request, limit: int = 20) -> Response:
    account, session_id = await authenticate(request)
    return answer(page_of(await parts.sessions(account.id, limit), session_id, limit))


@post("/v1/auth/refresh")
async def refresh(request: Request) -> Response:
    body = msgspec.json.decode(await request.read(), type=Refresh)
    access, token, account = await parts.refresh(body.refresh_token)
    return answer(Tokens(access, token, account_of(account)))


@post("/v1/auth/login")
async def log_in(request: Request) -> Response:
    body = msgspec.json.decode(await request.read(), type=Login)
    access, token, account = await parts.log_in(
        body.login, body.password, request.client_ip, header(request, b"user-agent")
    )
    return answer(Tokens(access, token, account_of(account)))


app = AccessLog(server)
