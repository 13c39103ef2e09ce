"""Login and logout. Sessions are in the database; the browser holds the secret in a cookie that no script can read."""

import math
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from hemoscope.store.login_attempts import account_name
from hemoscope.store.values import User
from hemoscope.web.access import SESSION_COOKIE, Reader, check_origin
from hemoscope.web.app_state import AppState, app_state_of
from hemoscope.web.credentials import Credentials
from hemoscope.web.login_queue import Rank
from hemoscope.web.problems import Problem
from hemoscope.web.rate_limits import neighbourhood_of, network_of
from hemoscope.web.request_checks import client_of, too_often
from hemoscope.web.routes.responses import API, refusals
from hemoscope.web.schemas import LoggedIn, LoginGiven

router = APIRouter(prefix=API, tags=["account"])


@router.post("/login", responses=refusals(400, 401, 403, 409, 413, 415, 422, 503))
async def login(request: Request, response: Response, given: LoginGiven) -> LoggedIn:
    """Begin a session by name and password, or by a token. Attempts are counted by client and by user."""
    state = app_state_of(request)
    check_origin(request)
    if wait_s := state.logins.wait_s(client_of(request.scope)):
        raise too_often(wait_s)
    if not state.credentials:
        raise _no_users()
    if given.user and (wait_s := state.account_logins.wait_s(given.user, client_of(request.scope))):
        raise _too_often_for_account(wait_s)
    client = f"from {client_of(request.scope)}"
    user, checked = await _user_of(state, given, client_of(request.scope))
    if user is None:
        await to_thread.run_sync(partial(_audit_refusal, state, given, client))
        raise _wrong()
    opening = partial(state.store.open_session, user, lasting=state.settings.session, detail=client)
    token, session = await to_thread.run_sync(opening)
    if user.name in checked.changed_in(state.credentials):
        # A reload took what was just checked out of force; it may have ended the user's sessions before this one.
        await to_thread.run_sync(state.store.close_session, token)
        await to_thread.run_sync(partial(_audit_refusal, state, given, client))
        raise _wrong()
    state.account_logins.succeeded(user.name, client_of(request.scope))
    _set_cookie(request, response, token, state)
    return LoggedIn(user=user, csrf_token=session.csrf)


@router.post("/logout", status_code=204, responses=refusals(401, 403))
def logout(request: Request, caller: Reader) -> Response:
    """End the session and the user's claims; the browser deletes its cached images."""
    state = app_state_of(request)
    if token := request.cookies.get(SESSION_COOKIE):
        state.store.close_session(token)
        # Afterwards: the page that is left can claim the study no more.
        state.store.readers.release_all(by=caller.user.name)
    response = Response(status_code=204, headers={"Clear-Site-Data": '"cache"'})
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
    return response


async def _user_of(state: AppState, given: LoginGiven, client: str) -> tuple[User | None, Credentials]:
    """Check what was given, passwords one after the other; return also what it was checked against.

    Raises:
        Problem: 429 or 503, there are too many.
    """
    if given.token is not None:
        return state.credentials.user_of_token(given.token), state.credentials
    name = given.user or ""
    known = state.account_logins.knows(name, client)
    familiar = Rank.FAMILIAR if state.account_logins.familiar(client) else Rank.STRANGE
    rank = Rank.KNOWN if known else familiar
    async with state.passwords.place(rank=rank, network=neighbourhood_of(client)):
        counting = partial(state.store.count_login, _counted(state, name, client, known=known))
        if wait_s := await to_thread.run_sync(counting):
            raise too_often(wait_s) if known else _too_often_for_account(wait_s)
        credentials = state.credentials
        check = partial(credentials.user_of_password, name, given.password or "")
        return await to_thread.run_sync(check), credentials


def _counted(state: AppState, name: str, client: str, *, known: bool) -> dict[str, int]:
    """Under which names all web processes count an attempt, and how many each has in a minute."""
    address = {f"address {network_of(client)}": state.settings.logins_per_minute}
    account = {account_name(name, known=state.credentials.names(name)): state.settings.account_logins_per_minute}
    return address if known else {**address, **account}


def _audit_refusal(state: AppState, given: LoginGiven, client: str) -> None:
    """Record which account was tried, if there is one: what else stands in the field may be a password."""
    name = given.user or ""
    known = given.token is None and state.credentials.names(name)
    what = "unknown token" if given.token is not None else "wrong password" if known else "unknown account"
    state.store.audit(user=name if known else "", action="login refused", detail=f"{what}, {client}")


def _set_cookie(request: Request, response: Response, token: str, state: AppState) -> None:
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(state.settings.session.total_seconds()),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _wrong() -> Problem:
    return Problem(
        401,
        code="wrong_credentials",
        detail="The name and password, or the token, are wrong.",
        remedy="Check them, or ask an administrator for new ones",
        headers={"WWW-Authenticate": 'Bearer realm="hemoscope"'},
    )


def _too_often_for_account(wait_s: float) -> Problem:
    seconds = math.ceil(wait_s)
    return Problem(
        429,
        code="too_many_logins",
        detail="Too many attempts to log in as this user, from addresses that never logged in as this user before.",
        remedy=f"Wait {seconds} s and try again, or log in where you did before",
        headers={"Retry-After": str(seconds)},
    )


def _no_users() -> Problem:
    return Problem(
        409,
        code="no_users",
        detail="This server has no users: everybody on this machine has access.",
        remedy="Open /, or start the server with --users FILE",
    )
