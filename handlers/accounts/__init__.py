"""Accounts and sessions: the business. A service without it: `make new WITHOUT=accounts`."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.routing import Route

from handlers.accounts import accounts, introspection, sessions
from handlers.accounts.accounts import ACCOUNT_DELETED
from handlers.accounts.passwords import OWASP, Cost, Passwords
from handlers.accounts.principal import PRINCIPAL, Principal
from handlers.accounts.purge import purge_sessions
from handlers.accounts.session_cache import SessionCache
from handlers.accounts.sign_in_limits import SignInLimits
from handlers.accounts.tokens import REFRESH_TOKEN_PREFIX, TokenKeys
from infra.http.parts import Part
from infra.http.state import State
from settings import EVENTS

ROUTES = [
    Route("/v1/auth/register",              accounts.register,        methods=["POST"]),
    Route("/v1/auth/login",                 sessions.log_in,          methods=["POST"]),
    Route("/v1/auth/refresh",               sessions.refresh,         methods=["POST"]),
    Route("/v1/auth/logout",                sessions.log_out,         methods=["POST"]),
    Route("/v1/auth/me",                    accounts.read_me,         methods=["GET"]),
    Route("/v1/auth/me",                    accounts.update_me,       methods=["PATCH"]),
    Route("/v1/auth/me",                    accounts.delete_me,       methods=["DELETE"]),
    Route("/v1/auth/me/password",           accounts.change_password, methods=["PUT"]),
    Route("/v1/auth/sessions",              sessions.list_sessions,   methods=["GET"]),
    Route("/v1/auth/sessions/{session_id}", sessions.revoke_session,  methods=["DELETE"]),
    Route("/v1/auth/introspect",            introspection.introspect, methods=["POST"]),
]  # fmt: skip


@contextlib.asynccontextmanager
async def open_accounts(state: State, cost: Cost = OWASP) -> AsyncIterator[dict[str, Any]]:
    """What AccountsState adds."""
    settings = state.settings
    with contextlib.closing(Passwords(cost)) as passwords:
        cached = SessionCache(state.redis)
        for counting in (passwords, cached):
            state.registry.register(counting.collect)
        yield {
            "limits": SignInLimits(
                state.redis, state.refusals, settings.login_rate_limit, settings.register_rate_limit
            ),
            "passwords": passwords,
            "sessions": cached,
            "token_keys": TokenKeys(
                settings.name, settings.secret_key, settings.secret_key_previous, settings.access_token_ttl
            ),
        }


PART = Part(
    routes=ROUTES,
    open=open_accounts,
    readers={Principal: PRINCIPAL},
    calls=[ACCOUNT_DELETED],
    tasks={f"{EVENTS}.sessions.purge": purge_sessions},
    links={"register": "/v1/auth/register", "login": "/v1/auth/login", "me": "/v1/auth/me"},
    token_prefixes=[REFRESH_TOKEN_PREFIX],
)
