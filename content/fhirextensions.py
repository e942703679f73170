"""FHIR extensions by name (the last part of their address): which are read, which are harmless, which are refused.

An extension that changes what is asked or how it is scored is refused by name, one that merely looks like it too; any other
that is not known is a warning. None is passed over in silence.
"""

import re

from content.failures import Text
from content.fhirjson import SCORES, TRANSLATION, Json, Reader, last, names

RULES = "urn:xinqiao:fhir:rules"
"""Our own extension of a Questionnaire: what FHIR has no place for, as JSON text (see `fhirout`)."""

REFUSED = names(
    """sdc-questionnaire-enableWhenExpression sdc-questionnaire-answerExpression sdc-questionnaire-candidateExpression
    sdc-questionnaire-answerOptionsToggleExpression sdc-questionnaire-subQuestionnaire questionnaire-constraint targetConstraint
    questionnaire-optionExclusive questionnaire-unitOption questionnaire-unitValueSet cqf-expression cqf-calculatedValue
    questionnaire-optionRestriction questionnaire-referenceProfile sdc-questionnaire-questionnaireAdaptive
    sdc-questionnaire-assembleContext"""
)
READ = names(
    """sdc-questionnaire-calculatedExpression variable minValue maxValue sdc-questionnaire-minQuantity
    sdc-questionnaire-maxQuantity questionnaire-unit questionnaire-minOccurs questionnaire-maxOccurs questionnaire-hidden
    questionnaire-itemControl rendering-style"""
)
# Appearance, or a matter of other systems; nothing is lost by leaving them out.
HARMLESS = names(
    """questionnaire-displayCategory questionnaire-optionPrefix rendering-styleSensitive entryFormat
    sdc-questionnaire-observationLinkPeriod sdc-questionnaire-performerType structuredefinition-standards-status
    structuredefinition-fmm sdc-questionnaire-itemExtractionContext sdc-questionnaire-entryMode rendering-markdown
    sdc-questionnaire-observation-extract sdc-questionnaire-shortText sdc-questionnaire-launchContext
    questionnaire-choiceOrientation questionnaire-sliderStepValue maxDecimalPlaces"""
)
DECIDES = re.compile("enablewhen|calculated|toggle|constraint|score|scoring|weight|ordinal|points", re.I)
"""In the name of an unknown extension: it may decide about a question or a score."""


def notice(reader: Reader, node: Json, path: str) -> None:
    """Refuse the extensions of a node that change what is asked or scored; warn of those nobody here reads."""
    for where, url, _ in reader.extensions(node, path):
        name = last(url)
        if name in REFUSED or (url == RULES and path) or (DECIDES.search(name) and name not in READ | HARMLESS | SCORES):
            reader.refuse(where, name[:60], Text("它会改变题目或计分", "it changes what is asked or scored"))
        elif name not in READ | HARMLESS | SCORES and url not in (TRANSLATION, RULES):
            reader.warn(where, f"未使用 not used: {name[:60]}")
