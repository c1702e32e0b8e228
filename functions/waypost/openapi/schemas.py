"""What bodies hold, as JSON Schemas: those of requests, of answers, and of callbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waypost.core import limits
from waypost.core.event import STATES
from waypost.core.message import Phase
from waypost.core.policy import Policy
from waypost.openapi.patterns import DESTINATION, ENDPOINT, HEADER, QUEUE_NAME, TOKEN, Schema, described


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(policy: Policy) -> Mapping[str, Schema]:
    """By the names that `ref` gives."""
    accepted = _accepted(policy)
    without_body = {name: schema for name, schema in accepted.items() if name not in ("body", "bodyBase64")}
    return {
        "Error": _object(
            {"error": text("What is wrong with which field and value, and what to do about it.")},
            ["error"],
            {"error": 'Upstash-Retries: "many" is no number of retries, write 0 or more'},
        ),
        "Accepted": _object(
            {
                "messageId": _ID,
                "url": text("To a URL group: the endpoint that this message is for."),
                "deduplicated": {
                    "type": "boolean",
                    "description": "True: an earlier message has this deduplication id. It is the one that is named.",
                },
            },
            ["messageId"],
            {"messageId": EXAMPLE_ID},
        ),
        "NotStored": _object(
            {"error": text("Why this message was not stored."), "url": text("To a URL group: the endpoint.")}, ["error"]
        ),
        "Batch": {
            "type": "array",
            "items": ref("BatchItem"),
            "maxItems": limits.BATCH_MESSAGES,
            "examples": [[_EXAMPLE_ITEM]],
        },
        "BatchItem": _object(
            {
                "destination": described("A URL, the name of a URL group, or `api/llm`.", DESTINATION),
                "headers": {
                    "type": ["object", "null"],
                    "propertyNames": {"pattern": f"^{TOKEN}$"},
                    "additionalProperties": HEADER,
                    "description": "Those of a publish: settings, `Upstash-Forward-<Name>`, Content-Type.",
                },
                "body": {
                    "type": ["string", "null"],
                    "description": f"What is delivered; {policy.max_body:,} bytes at most.",
                },
                "queue": {
                    **QUEUE_NAME,
                    "type": ["string", "null"],
                    "description": "A queue to put it into. Not together with a flow-control key.",
                },
            },
            ["destination"],
        ),
        "BatchAnswer": {
            "type": "array",
            "items": {"anyOf": [*_OUTCOMES, {"type": "array", "items": {"anyOf": _OUTCOMES}}]},
            "description": "In the order of the batch; a list for what went to a URL group.",
        },
        "Group": _object(
            {
                "name": text("Its name."),
                "createdAt": number(f"When it was made, {_TIME}."),
                "updatedAt": number(f"When it was changed last, {_TIME}."),
                "endpoints": _list("Endpoint"),
                "headers": _headers("Stand for every publish to it that does not say otherwise."),
            },
            ["name", "createdAt", "updatedAt", "endpoints"],
        ),
        "Groups": {"type": "array", "items": ref("Group"), "description": "In order of their names."},
        "Endpoint": _object({"url": text("Where messages go."), "name": text("Its name in the group.")}, ["url"]),
        "NewEndpoints": _object(
            {"endpoints": {"type": "array", "items": ref("NewEndpoint"), "minItems": 1}},
            ["endpoints"],
            {"endpoints": [{"url": "https://example.com/hook", "name": "first"}]},
        ),
        "NewEndpoint": _object(
            {
                "url": described("Where messages go.", ENDPOINT),
                "name": {
                    "type": ["string", "null"],
                    "maxLength": limits.GROUP_NAME_LENGTH,
                    "description": "No two of a group have the same.",
                },
            },
            ["url"],
        ),
        "OldEndpoints": _object({"endpoints": _list("OldEndpoint")}, ["endpoints"], {"endpoints": [{"name": "first"}]}),
        "OldEndpoint": {
            "type": "object",
            "properties": {
                "url": {"type": ["string", "null"], "description": "Any endpoint that has it."},
                "name": {"type": ["string", "null"], "description": "The same; with a URL, that which has both."},
            },
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string", "minLength": 1}}}
                for name in ("url", "name")
            ],
        },
        "GroupHeaders": _object(
            {
                "headers": {
                    "type": "object",
                    "propertyNames": {"pattern": f"^{TOKEN}$"},
                    "additionalProperties": HEADER,
                    "description": (
                        "Those of a publish, but for `Upstash-Not-Before` and `Upstash-Deduplication-Id`, which are"
                        " of one message, and `Authorization`."
                    ),
                }
            },
            ["headers"],
            {"headers": {"Upstash-Retries": "5", "Upstash-Forward-X": ["1", "2"]}},
        ),
        "Nothing": _object({}, []),
        "Named": _object({"messageId": _ID}, ["messageId"], {"messageId": EXAMPLE_ID}),
        "CancelledMany": _object(
            {
                "cancelled": number("How many, so far.", minimum=0),
                "more": {"type": "boolean", "description": "True: the rest follows by itself. None of it is sent."},
            },
            ["cancelled"],
            {"cancelled": 12_000, "more": True},
        ),
        "Cancelled": _object(
            {"cancelled": number("1; 0 if the message had ended.", minimum=0)}, ["cancelled"], {"cancelled": 1}
        ),
        "Message": _object({**accepted, **_STANDING}, [*_ACCEPTED_REQUIRED, "state", "retried"]),
        "DeadLetter": _object({**accepted, **_letter()}, [*_ACCEPTED_REQUIRED, "dlqId", "responseStatus"]),
        "DeadLetters": _object(
            {"messages": _list("DeadLetter"), "cursor": _CURSOR},
            ["messages"],
            {"messages": [], "cursor": "1790" + "0" * 21},
        ),
        "Deleted": _object({"deleted": number("How many.", minimum=0)}, ["deleted"], {"deleted": 1}),
        "DeletedSome": _object(
            {"deleted": number("How many.", minimum=0), "cursor": _CURSOR}, ["deleted"], {"deleted": 17}
        ),
        "Retried": _object(
            {"responses": _list("Named"), "cursor": _CURSOR},
            ["responses"],
            {"responses": [{"messageId": EXAMPLE_ID}]},
        ),
        "LetterIds": _ids("dlqIds", limits.LETTER_IDS, EXAMPLE_LETTER),
        "MessageIds": _ids("messageIds", limits.CANCEL_IDS, EXAMPLE_ID),
        "Event": _object({**without_body, **_event()}, ["time", "messageId", "state", "url", "callerIP"]),
        "Events": _object({"events": _list("Event"), "cursor": _CURSOR}, ["events"]),
        "Logs": _object({"logs": _list("Event"), "cursor": _CURSOR}, ["logs"]),
        "Scheduled": _object({"scheduleId": text("Its id.")}, ["scheduleId"], {"scheduleId": "report"}),
        "Schedule": _schedule(policy),
        "Schedules": {"type": "array", "items": ref("Schedule"), "description": "In order of their making."},
        "Queue": _object(
            {
                "name": text("Its name."),
                "parallelism": number("Messages of it that are under way at once.", minimum=1),
                "createdAt": number(f"When it was made, {_TIME}."),
                "updatedAt": number(f"When it was changed last, {_TIME}."),
                "lag": number("Messages that have taken their places and not ended, those under way included."),
                "paused": {"type": "boolean", "description": "True: nothing of it is sent until it is resumed."},
            },
            ["name", "parallelism", "createdAt", "updatedAt", "lag", "paused"],
        ),
        "Queues": {"type": "array", "items": ref("Queue"), "description": "In order of their names."},
        "NewQueue": _object(
            {
                "queueName": described("Its name.", QUEUE_NAME),
                "parallelism": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "maximum": limits.PARALLELISM,
                    "description": "Messages of it that are under way at once. Default: as it is, 1 for a new one.",
                },
                "paused": {"type": ["boolean", "null"], "description": "Whether it is paused. Default: it is not."},
            },
            ["queueName"],
            {"queueName": "orders", "parallelism": 1},
        ),
        "FlowControlKey": _flow_control_key(),
        "FlowControlKeys": {
            "type": "array",
            "items": ref("FlowControlKey"),
            "description": "In order of their names.",
        },
        "GlobalParallelism": _object(
            {
                "parallelismMax": number("How many requests they allow at once, all together."),
                "parallelismCount": number("How many are under way, or about to start."),
            },
            ["parallelismMax", "parallelismCount"],
            {"parallelismMax": 15, "parallelismCount": 7},
        ),
        "Keys": _object(
            {
                "current": text("Signs every request to an endpoint."),
                "next": text("Comes after it: accept both, so that keys can be changed."),
            },
            ["current", "next"],
            {"current": "sig_...", "next": "sig_..."},
        ),
        "Health": _object({"status": {"type": "string", "const": "ok"}}, ["status"], {"status": "ok"}),
        "Told": _told(),
    }


EXAMPLE_ID = "msg_5QmZ0a1bDyXn7fKq2LhR4sTv"
EXAMPLE_LETTER = "1790000000000-42"
_ID = text("The message's id: it is the same on every attempt.")
_CURSOR = text("Goes on where this list ends; left out at the end. A list may be short, or empty, and have one.")
_EXAMPLE_ITEM = {
    "destination": "https://example.com/hook",
    "headers": {"Content-Type": "application/json", "Upstash-Delay": "10s"},
    "body": '{"hello": "world"}',
}
_TIME = "in milliseconds since 1970"
_OUTCOMES = [ref("Accepted"), ref("NotStored")]
_ACCEPTED_REQUIRED = (
    "messageId",
    "url",
    "method",
    "maxRetries",
    "notBefore",
    "createdAt",
    "header",
    "callerIP",
    "timeout",
)


def _object(properties: Mapping[str, Schema], required: Sequence[str], example: Any = None) -> Schema:
    shape: Schema = {"type": "object", "properties": dict(properties), "required": list(required)}
    return shape if example is None else {**shape, "examples": [example]}


def _ids(name: str, most: int, example: str) -> Schema:
    description = f"These and no others, {most:,} at most with those of the query. An empty list names none."
    ids = {"type": "array", "items": {"type": "string"}, "description": description}
    return {**_object({name: ids}, [name], {name: [example]}), "additionalProperties": False}


def _list(of: str) -> Schema:
    return {"type": "array", "items": ref(of)}


def _headers(description: str) -> Schema:
    return {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "string"}},
        "description": f"{description} By name, each with all its values.",
    }


def _caller(description: str) -> dict[str, Schema]:
    return {"callerIP": text(description), "callerIp": text("The same.")}


def _accepted(policy: Policy) -> dict[str, Schema]:
    """What a message was accepted with."""
    return {
        "messageId": _ID,
        "url": text("The destination."),
        "method": text("How it is called."),
        "maxRetries": number("Retries after the first attempt.", minimum=0, maximum=policy.max_retries),
        "notBefore": number(f"The first attempt starts no earlier, {_TIME}."),
        "createdAt": number(f"When it was accepted, {_TIME}."),
        "header": _headers("What is forwarded to the destination, Content-Type included."),
        **_caller("The address that published it."),
        "timeout": number("How long the destination may take, in milliseconds.", minimum=1),
        **_VIA,
        **_TERMS,
    }


def _flow_control_key() -> Schema:
    fields = {
        "flowControlKey": text("The key."),
        "waitListSize": number("Messages that wait for their turn.", minimum=0),
        "parallelismMax": number("Requests at once; 0: any number.", minimum=0),
        "parallelismCount": number("Requests that are under way, or about to start.", minimum=0),
        "rateMax": number("Starts in a period; 0: any number.", minimum=0),
        "rateCount": number("Starts in the period that is open.", minimum=0),
        "ratePeriod": number("How long a period is, in seconds; 0: there is no rate.", minimum=0),
        "ratePeriodStart": number("When the last period began, in seconds since 1970.", minimum=0),
        "isPaused": {"type": "boolean", "description": "True: nothing is sent until it is resumed."},
        "isPinnedParallelism": {"type": "boolean", "description": "True: what messages say of it does not count."},
        "isPinnedRate": {"type": "boolean", "description": "The same of rate and period."},
    }
    return _object(fields, list(fields))


def _schedule(policy: Policy) -> Schema:
    return _object(
        {
            "scheduleId": text("Its id."),
            "destination": text("A URL, the name of a URL group, or `api/llm`."),
            "cron": text("When it fires, as it was given."),
            "createdAt": number(f"When it was made first, {_TIME}."),
            "isPaused": {"type": "boolean", "description": "True: it does not fire until it is resumed."},
            **_caller("The address that made it: that of its messages."),
            "method": text("How the destination is called."),
            "retries": number("Retries after the first attempt.", minimum=0, maximum=policy.max_retries),
            "header": _headers("What is forwarded to the destination, Content-Type included."),
            "timeout": number("How long the destination may take, in milliseconds.", minimum=1),
            "delay": number("How long each message waits for its first attempt, in seconds.", minimum=0),
            **_TERMS,
            "nextScheduleTime": number(f"When it fires next, {_TIME}; left out while it is paused."),
            "lastScheduleTime": number(f"When it fired last, {_TIME}."),
            "lastScheduleStates": {
                "type": "object",
                "additionalProperties": {"type": "string", "enum": ["IN_PROGRESS", "SUCCESS", "FAIL"]},
                "description": (
                    f"What became of its last messages, by their ids, of {limits.FIRED_MESSAGES} at most; those kept no"
                    " longer are left out."
                ),
            },
            "error": text("Why the last firing made no message."),
        },
        [
            *("scheduleId", "destination", "cron", "createdAt", "isPaused", "callerIP", "method", "retries"),
            *("header", "timeout"),
        ],
    )


#: What messages and schedules may have.
_TERMS: Mapping[str, Schema] = {
    "body": text("The body, if it is text."),
    "bodyBase64": text("The body in base64, if it is no text."),
    "label": text("The first label."),
    "labels": {"type": "array", "items": {"type": "string"}, "description": "All labels."},
    "retryDelayExpression": text("The expression for the waits before retries."),
    "backoff": {"type": "string", "enum": ["exponential", "fixed"], "description": "The waits before retries."},
    "queueName": text("The queue that it goes through."),
    "flowControlKey": text("Its flow-control key."),
    "parallelism": number("What it asks for its key: requests at once."),
    "rate": number("Likewise: starts in a period."),
    "period": number("Likewise: how long that is, in seconds."),
    "callback": text("Is told of every attempt."),
    "callbackHeader": _headers("What is forwarded to the callback."),
    "failureCallback": text("Is told if the message fails for good."),
    "failureCallbackHeader": _headers("What is forwarded to the failure callback."),
}
#: Through what a message came.
_VIA: Mapping[str, Schema] = {
    "topicName": text("The URL group that it was published to."),
    "endpointName": text("The name that its endpoint has there."),
    "api": text("The api that it was published to."),
    "scheduleId": text("The schedule that made it."),
}
#: What has become of a message.
_STANDING: Mapping[str, Schema] = {
    "state": {
        "type": "string",
        "enum": [*(phase.value for phase in Phase), "CANCEL_REQUESTED"],
        "description": (
            "CREATED: no attempt yet. ACTIVE: one is under way. RETRY: it waits for the next. DELIVERED, FAILED and"
            " CANCELED are ends. CANCEL_REQUESTED: it ends with the attempt that is under way."
        ),
    },
    "retried": number("Attempts that came back without success.", minimum=0),
    "nextDeliveryTime": number(f"With RETRY, or when it was made due: the next attempt starts no earlier, {_TIME}."),
    "endedAt": number(f"When it ended, {_TIME}."),
    "waiting": text("Why it waits, in one sentence; left out where it does not."),
    "rateWindows": {
        "type": "array",
        "items": number(f"When the window began, {_TIME}."),
        "description": "The rate windows of its flow-control key that its last attempts counted in.",
    },
    "responseStatus": number("The status of the last attempt's answer; 0: there was none."),
    "error": text("Why the last attempt got no answer, or what ended the message."),
}


def _letter() -> Mapping[str, Schema]:
    return {
        "dlqId": text("The entry's id.", examples=[EXAMPLE_LETTER]),
        "responseStatus": number("The status of the last answer; 0: there was none, and `error` says why."),
        "error": text("Why there was no answer."),
        "responseHeader": _headers(
            f"Those of the last answer, as many as have {limits.LETTER_ANSWER_HEADERS:,} characters."
        ),
        "responseBody": text(f"The last answer, if it is text; its first {limits.LETTER_ANSWER:,} bytes."),
        "responseBodyBase64": text("The same in base64, if it is no text."),
    }


def _event() -> Mapping[str, Schema]:
    return {
        "time": number(f"When it happened, {_TIME}."),
        "state": {"type": "string", "enum": list(STATES), "description": "What happened."},
        "body": text(
            f"The message's body in base64; left out where it is larger than {limits.BODY_AT_HAND:,} bytes as stored."
        ),
        "callbackHeaders": _headers("What is forwarded to the callback."),
        "failureCallbackHeaders": _headers("What is forwarded to the failure callback."),
        "retryDelayExpr": text("The same as `retryDelayExpression`."),
        "nextDeliveryTime": number(f"With RETRY: the next attempt starts no earlier, {_TIME}."),
        "responseStatus": number("With ERROR: the answer's status; 0: there was none."),
        "responseHeaders": _headers(
            f"With ERROR: those of the answer, as many as have {limits.ATTEMPT_ANSWER_HEADERS:,} characters."
        ),
        "responseHeader": _headers("The same as `responseHeaders`."),
        "responseBody": text(f"With ERROR: the answer, if it is text; its first {limits.ATTEMPT_ANSWER:,} bytes."),
        "responseBodyBase64": text("The same in base64, if it is no text."),
        "error": text("With ERROR: why there was no answer."),
    }


def _told() -> Schema:
    """The body of a callback."""
    return _object(
        {
            "status": number("The status of the answer; 0: there was none."),
            "header": _headers("The answer's."),
            "body": text(f"The answer in base64, to {limits.ANSWER_BODY // 1024} KiB."),
            "error": text("Why there was no answer."),
            "retried": number("Attempts before this one."),
            "maxRetries": number("Retries after the first attempt: with as many `retried` this was the last one."),
            "sourceMessageId": text("The message that is told of."),
            "url": text("Its destination."),
            "method": text("How it was called."),
            "sourceHeader": _headers("What was forwarded."),
            "sourceBody": text("The message's body in base64."),
            "callerIP": text("The address that published it."),
            **_VIA,
            "notBefore": number(f"Its first attempt started no earlier, {_TIME}."),
            "createdAt": number(f"When it was accepted, {_TIME}."),
            "dlqId": text("Of a failure: the dead letter."),
        },
        ["status", "maxRetries", "sourceMessageId", "url", "method", "createdAt"],
    )
