"""Vocabularies: every coded list with its labels, so that an app need not carry a copy that goes stale."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify

from api import front
from api.guard import Blueprint
from content import languages, vocabulary
from content.vocabulary import Label

blp = Blueprint("vocabularies", __name__, url_prefix="/v1", description="Coded lists and what each code is called")
DAY = 86400
TABLES: Mapping[str, Mapping[str, Label]] = {
    "audiences": vocabulary.AUDIENCES, "stages": vocabulary.STAGES, "topics": vocabulary.TOPICS, "kinds": vocabulary.KINDS,
    "seasons": vocabulary.SEASONS, "formats": vocabulary.FORMATS, "places": vocabulary.PLACES,
    "lecturers": vocabulary.LECTURERS, "volunteers": vocabulary.VOLUNTEERS, "organisations": vocabulary.ORGANISATIONS,
}  # fmt: skip


class CodeLabel(ma.Schema):
    zh = ma.fields.String(data_key="zh-Hans", metadata={"example": "初中"})
    en = ma.fields.String(metadata={"example": "junior high school"})


class Code(ma.Schema):
    """One code of a list, in the list's order."""

    code = ma.fields.String(metadata={"example": "junior"})
    label = ma.fields.Nested(CodeLabel)
    grades = ma.fields.List(ma.fields.Integer(), metadata={"description": "of a stage: its grades, as in junior.9"})


class LanguageOut(ma.Schema):
    language = ma.fields.String(metadata={"example": "mn-Mong"})
    name = ma.fields.String()
    script = ma.fields.String()
    direction = ma.fields.String(metadata={"description": "ltr, rtl, or ttb (columns from left to right)"})


class VocabulariesOut(ma.Schema):
    audiences = ma.fields.List(ma.fields.Nested(Code))
    stages = ma.fields.List(ma.fields.Nested(Code))
    topics = ma.fields.List(ma.fields.Nested(Code))
    kinds = ma.fields.List(ma.fields.Nested(Code))
    seasons = ma.fields.List(ma.fields.Nested(Code))
    formats = ma.fields.List(ma.fields.Nested(Code))
    places = ma.fields.List(ma.fields.Nested(Code))
    lecturers = ma.fields.List(ma.fields.Nested(Code), metadata={"description": "who gives courses"})
    volunteers = ma.fields.List(ma.fields.Nested(Code), metadata={"description": "as what someone offers to help"})
    organisations = ma.fields.List(ma.fields.Nested(Code))
    languages = ma.fields.List(ma.fields.Nested(LanguageOut))


@blp.get("/vocabularies")
@blp.alt_response(200, schema=VocabulariesOut)
def show() -> Response:
    """Every coded list with its labels in zh-Hans and en"""
    result: dict[str, Any] = {}
    for name, table in TABLES.items():
        result[name] = [{"code": code, "label": {"zh-Hans": label.zh, "en": label.en}} for code, label in table.items()]
    for row in result["stages"]:
        row["grades"] = list(vocabulary.GRADES.get(row["code"], ()))
    result["languages"] = [languages.written(tag) for tag in languages.NAMES]
    front.keep(DAY, DAY)
    return jsonify(result)
