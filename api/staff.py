"""Staff: signing in, the own account, accounts and organisations, and the trail of what staff wrote.

No answer holds a password, a hash, or a stored secret; the address of a new second factor is shown once, to its owner.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor, token
from api.guard import Blueprint, created, cursor_of, if_match, make_cursor, next_page, tagged
from api.shapes import Paging, Regexp, settings
from content import records
from content import staff as people
from content.failures import Failure, Forbidden, NotFound
from content.staff import Account, Grant, Organisation, Tokens
from content.vocabulary import ORGANISATIONS

blp = Blueprint("staff", __name__, url_prefix="/v1/staff", description="Sign in; accounts, organisations, the audit trail")

PASSWORD = validate.Length(1, people.PASSWORD[1])
NEW_PASSWORD = validate.Length(*people.PASSWORD)
CODE = Regexp("^[0-9]{6}$")


# --- the own session -------------------------------------------------------------------------------------------------


class SignInIn(ma.Schema):
    name = ma.fields.String(required=True, validate=validate.Length(1, 64), metadata={"example": "admin"})
    password = ma.fields.String(required=True, validate=PASSWORD)
    code = ma.fields.String(
        load_default="", validate=Regexp("^([0-9]{6})?$"), metadata={"description": "one-time code, where one is set up"}
    )


class RefreshIn(ma.Schema):
    refresh_token = ma.fields.String(required=True, validate=validate.Length(1, 100))


class TokensOut(ma.Schema):
    access_token = ma.fields.String(metadata={"description": "for `Authorization: Bearer`; lives 30 minutes"})
    refresh_token = ma.fields.String(metadata={"description": "works once; 14 days after signing in it is over"})
    token_type = ma.fields.String(metadata={"example": "Bearer"})
    access_expires_at = ma.fields.String()
    refresh_expires_at = ma.fields.String()
    must_change_password = ma.fields.Boolean()


def given(tokens: Tokens) -> Response:
    """Tokens as they are answered."""
    body = {
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
        "token_type": "Bearer",
        "access_expires_at": tokens.access_expires_at.isoformat(),
        "refresh_expires_at": tokens.refresh_expires_at.isoformat(),
        "must_change_password": tokens.must_change_password,
    }
    return jsonify(body)


@blp.post("/session")
@blp.arguments(SignInIn)
@blp.alt_response(200, schema=TokensOut)
def sign_in(payload: dict[str, Any]) -> Response:
    """Sign in

    After four failures in a row each further one makes the name wait 2, 4, 8 … seconds, at most 15 minutes (429).
    """
    return given(people.sign_in(payload["name"], payload["password"], payload["code"]))


@blp.post("/session/refresh")
@blp.arguments(RefreshIn)
@blp.alt_response(200, schema=TokensOut)
def refresh(payload: dict[str, Any]) -> Response:
    """New tokens for a refresh token

    It works once. A second use ends the session, since two hold it.
    """
    return given(people.refresh(payload["refresh_token"]))


@blp.delete("/session")
@blp.alt_response(204, description="Signed out")
def sign_out() -> tuple[str, int]:
    """Sign out"""
    people.sign_out(token())
    return "", 204


@blp.delete("/session/all")
@blp.alt_response(204, description="Signed out everywhere")
def sign_out_everywhere() -> tuple[str, int]:
    """Sign out on every device"""
    people.sign_out_everywhere(actor().id, actor().id)
    return "", 204


# --- the own account -------------------------------------------------------------------------------------------------


class GrantSchema(ma.Schema):
    role = ma.fields.String(required=True, validate=validate.OneOf(list(people.ROLES)))
    organisation = ma.fields.String(load_default="", validate=Regexp("^([0-9a-f]{32})?$"))
    division = ma.fields.String(load_default="", validate=Regexp("^([0-9]{6})?$"), metadata={"example": "500114"})


class AccountOut(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String()
    display_name = ma.fields.String()
    state = ma.fields.String(metadata={"description": "active or disabled"})
    grants = ma.fields.List(ma.fields.Nested(GrantSchema))
    totp = ma.fields.Boolean(metadata={"description": "a second factor is set up"})
    must_change_password = ma.fields.Boolean()
    created_at = ma.fields.String()
    created_by = ma.fields.String()
    revision = ma.fields.Integer()


class MeOut(AccountOut):
    permissions = ma.fields.List(ma.fields.String())


class PasswordIn(ma.Schema):
    old = ma.fields.String(required=True, validate=PASSWORD)
    new = ma.fields.String(required=True, validate=NEW_PASSWORD)


class TotpIn(ma.Schema):
    password = ma.fields.String(required=True, validate=PASSWORD)


class TotpOut(ma.Schema):
    uri = ma.fields.String(metadata={"description": "otpauth address, shown this once: make a QR code of it for the app"})


class CodeIn(ma.Schema):
    code = ma.fields.String(required=True, validate=CODE)


def shown(account: Account) -> dict[str, Any]:
    """An account as it is answered: nothing secret, named field by field so that a new field stays inside."""
    return {
        "id": account.id,
        "name": account.name,
        "display_name": account.display_name,
        "state": account.state,
        "grants": [vars(grant) for grant in account.held()],
        "totp": bool(account.totp_secret),
        "must_change_password": account.must_change_password,
        "created_at": account.created_at.isoformat(),
        "created_by": account.created_by,
        "revision": account.revision,
    }


@blp.get("/me")
@blp.alt_response(200, schema=MeOut)
def me() -> Response:
    """The own account, and what it may do somewhere"""
    who = actor()
    permissions = sorted({p for grant in who.grants for p in people.ROLES.get(grant.role, ())})
    return jsonify({**shown(people.get(who.id)), "permissions": permissions})


@blp.post("/me/password")
@blp.arguments(PasswordIn)
@blp.alt_response(200, schema=TokensOut)
def change_password(payload: dict[str, Any]) -> Response:
    """Change the own password

    Every session ends; the tokens answered begin a new one.
    """
    return given(people.change_password(actor().id, payload["old"], payload["new"]))


@blp.post("/me/totp")
@blp.arguments(TotpIn)
@blp.alt_response(200, schema=TotpOut)
def begin_totp(payload: dict[str, Any]) -> Response:
    """Begin to set up a second factor"""
    return jsonify({"uri": people.begin_totp(actor().id, payload["password"])})


@blp.post("/me/totp/confirm")
@blp.arguments(CodeIn)
@blp.alt_response(204, description="From now on signing in needs a code")
def confirm_totp(payload: dict[str, Any]) -> tuple[str, int]:
    """Confirm the second factor with a first code"""
    people.confirm_totp(actor().id, payload["code"])
    return "", 204


# --- accounts --------------------------------------------------------------------------------------------------------


class AccountsOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(AccountOut))
    next_cursor = ma.fields.String(allow_none=True)


class NewAccount(ma.Schema):
    name = ma.fields.String(required=True, validate=validate.Length(1, 64), metadata={"example": "chen.min"})
    display_name = ma.fields.String(required=True, validate=validate.Length(1, 80), metadata={"example": "陈敏"})
    password = ma.fields.String(required=True, validate=NEW_PASSWORD)
    grants = ma.fields.List(ma.fields.Nested(GrantSchema), load_default=list, validate=validate.Length(max=50))


class AccountEdit(ma.Schema):
    display_name = ma.fields.String(validate=validate.Length(1, 80))
    state = ma.fields.String(validate=validate.OneOf(["active", "disabled"]))
    grants = ma.fields.List(ma.fields.Nested(GrantSchema), validate=validate.Length(max=50))


class ResetIn(ma.Schema):
    password = ma.fields.String(required=True, validate=NEW_PASSWORD)


def managed(account_id: str) -> Account:
    """The account, when the asker administers it or is it; else it is not there."""
    account, who = people.get(account_id), actor()
    if account.id != who.id and not people.manages(who, account):
        raise NotFound(what=account_id)
    return account


@blp.get("/accounts")
@blp.arguments(Paging, location="query")
@blp.alt_response(200, schema=AccountsOut)
def accounts(query: dict[str, Any]) -> Response:
    """Accounts the asker administers, by name"""
    who = actor()
    rows = people.accounts(cursor_of(query, 1)[0], query["limit"] + 1)
    seen = rows[: query["limit"]]  # a page may hold fewer than `limit`: what lies outside the asker's reach is left out
    more = make_cursor([seen[-1].name]) if len(rows) > len(seen) else None
    return jsonify({"items": [shown(a) for a in seen if a.id == who.id or people.manages(who, a)], "next_cursor": more})


@blp.post("/accounts")
@blp.arguments(NewAccount)
@blp.alt_response(201, schema=AccountOut)
def create_account(payload: dict[str, Any]) -> Response:
    """Make an account

    Its password is changed at the first sign-in. Grants may not reach beyond the asker's own.
    """
    grants = [Grant(**row) for row in payload["grants"]]
    made = people.create_account(payload["name"], payload["display_name"], payload["password"], actor().id, grants)
    return created(shown(made), made.revision, f"/v1/staff/accounts/{made.id}")


@blp.get("/accounts/<string:account_id>")
@blp.alt_response(200, schema=AccountOut, description="ETag is the revision")
def account(account_id: str) -> Response:
    """One account"""
    found = managed(account_id)
    return tagged(shown(found), found.revision)


@blp.patch("/accounts/<string:account_id>")
@blp.arguments(AccountEdit)
@blp.alt_response(200, schema=AccountOut)
def edit_account(payload: dict[str, Any], account_id: str) -> Response:
    """Change display name, state or grants

    Needs If-Match. Nobody changes the own state or grants. Disabling ends every session at once.
    """
    revision = if_match()
    managed(account_id)
    if "grants" in payload:
        payload["grants"] = [Grant(**row) for row in payload["grants"]]
    changed = people.edit_account(account_id, actor().id, revision=revision, **payload)
    return tagged(shown(changed), changed.revision)


@blp.post("/accounts/<string:account_id>/password")
@blp.arguments(ResetIn)
@blp.alt_response(200, schema=AccountOut)
def reset_password(payload: dict[str, Any], account_id: str) -> Response:
    """Give someone a new password

    To be changed at the next sign-in; every session of the account ends.
    """
    managed(account_id)
    changed = people.set_password(account_id, payload["password"], actor().id)
    return tagged(shown(changed), changed.revision)


@blp.delete("/accounts/<string:account_id>/totp")
@blp.alt_response(204, description="Signing in needs no code any more")
def drop_totp(account_id: str) -> tuple[str, int]:
    """Take the second factor away, for someone who lost the phone"""
    managed(account_id)
    people.drop_totp(account_id, actor().id)
    return "", 204


# --- organisations ---------------------------------------------------------------------------------------------------


class OrganisationOut(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String(metadata={"example": "黔江区妇女联合会"})
    kind = ma.fields.String(metadata={"example": "federation"})
    division = ma.fields.String(metadata={"example": "500114"})
    parent = ma.fields.String(metadata={"description": "empty when it stands under none"})
    able = ma.fields.Boolean(metadata={"description": "marked as able to hold family education; the audit trail says since when"})
    parents = ma.fields.Integer(allow_none=True, metadata={"description": "families of a school; null: not known"})
    revision = ma.fields.Integer()


class OrganisationsOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(OrganisationOut))
    next_cursor = ma.fields.String(allow_none=True)


class OrganisationEdit(ma.Schema):
    name = ma.fields.String(validate=validate.Length(1, 80))
    kind = ma.fields.String(validate=validate.OneOf(list(ORGANISATIONS)))
    division = ma.fields.String(validate=Regexp("^[0-9]{6}$"))
    parent = ma.fields.String(validate=Regexp("^([0-9a-f]{32})?$"))
    able = ma.fields.Boolean(
        truthy={True}, falsy={False}, metadata={"description": "of a station, school, kindergarten: able to hold courses"}
    )
    parents = ma.fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(0, people.MOST_FAMILIES),
        metadata={"description": "how many families a school or kindergarten has"},
    )


class NewOrganisation(OrganisationEdit):
    name = ma.fields.String(required=True, validate=validate.Length(1, 80))
    kind = ma.fields.String(required=True, validate=validate.OneOf(list(ORGANISATIONS)))
    division = ma.fields.String(required=True, validate=Regexp("^[0-9]{6}$"))


def described(found: Organisation) -> dict[str, Any]:
    """An organisation as it is answered."""
    return {
        "id": found.id,
        "name": found.name,
        "kind": found.kind,
        "division": found.division,
        "parent": found.parent or "",
        "able": bool(found.able),
        "parents": found.parents,
        "revision": found.revision,
    }


@blp.get("/organisations")
@blp.arguments(Paging, location="query")
@blp.alt_response(200, schema=OrganisationsOut)
def organisations(query: dict[str, Any]) -> Response:
    """Organisations by division and name"""
    division, name = cursor_of(query, 2)
    rows = people.organisations((division, name), query["limit"] + 1)
    return jsonify(next_page(rows, query["limit"], lambda row: [row.division, row.name], described))


@blp.post("/organisations")
@blp.arguments(NewOrganisation)
@blp.alt_response(201, schema=OrganisationOut)
def create_organisation(payload: dict[str, Any]) -> Response:
    """Enter an organisation"""
    made = people.create_organisation(by=actor().id, **payload)
    return created(described(made), made.revision, f"/v1/staff/organisations/{made.id}")


@blp.get("/organisations/<string:organisation_id>")
@blp.alt_response(200, schema=OrganisationOut, description="ETag is the revision")
def organisation(organisation_id: str) -> Response:
    """One organisation"""
    found = people.organisation(organisation_id)
    return tagged(described(found), found.revision)


@blp.patch("/organisations/<string:organisation_id>")
@blp.arguments(OrganisationEdit)
@blp.alt_response(200, schema=OrganisationOut)
def edit_organisation(payload: dict[str, Any], organisation_id: str) -> Response:
    """Change an organisation

    Needs If-Match.
    """
    changed = people.edit_organisation(organisation_id, actor().id, if_match(), **payload)
    return tagged(described(changed), changed.revision)


# --- the trail -------------------------------------------------------------------------------------------------------


class AuditQuery(Paging):
    limit = ma.fields.Integer(load_default=50, validate=validate.Range(1, 200))
    kind = ma.fields.String(load_default="", validate=validate.Length(max=40), metadata={"example": "lesson"})
    key = ma.fields.String(load_default="", validate=validate.Length(max=80), metadata={"description": "id of the record"})
    actor = ma.fields.String(load_default="", validate=Regexp("^(system|[0-9a-f]{32})?$"))


class AuditLine(ma.Schema):
    id = ma.fields.String()
    at = ma.fields.String()
    actor = ma.fields.String(metadata={"description": "id of the account, or `system`"})
    action = ma.fields.String(metadata={"example": "lesson.publish"})
    kind = ma.fields.String()
    key = ma.fields.String()
    before = ma.fields.Dict(metadata={"description": "fields that changed; of personal ones only that they did"})
    after = ma.fields.Dict()
    note = ma.fields.String()


class AuditOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(AuditLine))
    next_cursor = ma.fields.String(allow_none=True)


def plain(value: Any) -> Any:
    """A stored value as JSON can hold it; bytes are never shown."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float | bool) else "…"


@blp.get("/audit")
@blp.arguments(AuditQuery, location="query")
@blp.alt_response(200, schema=AuditOut)
def audit(query: dict[str, Any]) -> Response:
    """What staff wrote, newest first

    The trail is one for the whole service, so reading it takes a grant for all organisations and the service's division.
    """
    if not actor().may("audit.read", "", settings().division):
        raise Forbidden()
    limit, before = query["limit"], None
    if query.get("cursor"):
        try:
            before = datetime.fromisoformat(cursor_of(query, 1)[0])
            before.astimezone(UTC)
        except (ValueError, OverflowError):
            raise Failure("bad_cursor") from None
        if before.tzinfo is None:
            raise Failure("bad_cursor")
    rows = records.history(query["kind"], query["key"], query["actor"], before, limit + 1)
    items, more = rows[:limit], None
    if len(rows) > limit:
        # a page never ends between lines of one millisecond, or the next one would begin after them
        upcoming = rows[limit].at
        whole = [row for row in items if row.at > upcoming]
        items, more = (whole, upcoming + timedelta(milliseconds=1)) if whole else (items, upcoming)
    names = ("id", "actor", "action", "kind", "key")
    lines = [
        {
            **{name: getattr(row, name) for name in names},
            "at": row.at.isoformat(),
            "before": plain(row.before or {}),
            "after": plain(row.after or {}),
            "note": row.note or "",
        }
        for row in items
    ]
    return jsonify({"items": lines, "next_cursor": make_cursor([more.isoformat()]) if more else None})
