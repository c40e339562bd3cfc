"""What this part adds to `request.state`."""

import starlette.requests

from handlers.accounts.passwords import Passwords
from handlers.accounts.session_cache import SessionCache
from handlers.accounts.sign_in_limits import SignInLimits
from handlers.accounts.tokens import TokenKeys
from infra.http.state import State


class AccountsState(State):
    limits: SignInLimits
    passwords: Passwords
    sessions: SessionCache
    token_keys: TokenKeys


Request = starlette.requests.Request[AccountsState]
