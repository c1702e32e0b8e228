"""What each served route is for, takes and answers, by its method and template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waypost.core import limits
from waypost.core.duration import show_duration
from waypost.core.policy import Policy
from waypost.openapi.parameters import (
    Parameter,
    cancel_filters,
    destination,
    flow_key,
    group,
    in_path,
    letter_filters,
    log_filters,
    pinned,
    publish_settings,
    queue,
    queue_settings,
    schedule_settings,
    searched,
    settings,
    unpinned,
)
from waypost.openapi.patterns import Schema
from waypost.openapi.schemas import EXAMPLE_ID, EXAMPLE_LETTER, ref

Operation = dict[str, Any]

PUBLISHING, MESSAGES, LETTERS, LOGS = "Publishing", "Messages", "Dead letters", "Logs"
GROUPS, SCHEDULES, QUEUES, FLOW = "URL groups", "Schedules", "Queues", "Flow control"
KEYS, SERVER = "Keys", "The server"


def operations(policy: Policy) -> Mapping[tuple[str, str], Operation]:
    message = in_path("id", "The message's id.", EXAMPLE_ID)
    letter = in_path("id", "The dead letter's id.", EXAMPLE_LETTER)
    return {
        ("POST", "/v2/publish/{destination}"): _publish(policy),
        ("POST", "/v2/enqueue/{queue}/{destination}"): _enqueue(policy),
        ("POST", "/v2/batch"): _batch(policy),
        ("GET", "/v2/messages/{id}"): _operation(
            MESSAGES,
            "getMessage",
            "Read a message",
            f"Where it stands, and what it was accepted with, until {show_duration(policy.retention_ms)} after its"
            " end.",
            [message],
            {200: _json("The message.", "Message"), **_errors(404)},
        ),
        ("DELETE", "/v2/messages"): _operation(
            MESSAGES,
            "cancelMessages",
            "Cancel many messages",
            f"""\
What waits, for its first attempt or for a retry, is cancelled; what is under way is stopped after its attempt.

With ids, in the query or in a JSON body, it is these: `cancelled` is how many of them were.

Without, it is an order: it covers all that was accepted until then and fits the filters, and none of it is sent once
this has answered. **Without filters it is everything.** `cancelled` is how many were met within 2 s; with `more`, the
rest follows by itself. {_FILTERS}

With a `count` it is so many at most, all of them before the answer. A count of 100 is no limit: the newest JavaScript
client always sends it, and does not come back for more.""",
            cancel_filters(),
            {200: _json("How many.", "CancelledMany"), **_errors(413)},
            body=_ids("MessageIds"),
        ),
        ("DELETE", "/v2/messages/{id}"): _operation(
            MESSAGES,
            "cancelMessage",
            "Cancel a message",
            "No attempt begins any more. One that is under way goes on: a success still counts. The message can be read"
            " as before.",
            [message],
            {200: _json("Cancelled, or ended before.", "Cancelled"), **_errors(404)},
        ),
        ("POST", "/v2/messages/{id}/retry"): _operation(
            MESSAGES,
            "retryMessage",
            "Make a waiting message due at once",
            "Whether it waits for its first attempt or for a retry. This route is Waypost's own.",
            [message],
            {
                200: _json("It is due.", "Named"),
                **_errors(404),
                409: _json("It is being delivered, or has ended.", "Error"),
            },
        ),
        ("GET", "/v2/dlq"): _operation(
            LETTERS,
            "listDeadLetters",
            "List dead letters",
            f"A message that failed for good stands here at once, for {show_duration(policy.dlq_retention_ms)}."
            f" {_FILTERS}\n\nOne call looks at about {limits.LETTERS_LOOKED_AT:,} entries, and a list ends before it"
            f" has more than {limits.LETTER_BYTES:,} bytes: it may be short or empty and still have a cursor. Go on"
            f" until there is none. Where ids are asked for, bodies are left out beyond {limits.LETTER_BYTES_WHOLE:,}"
            " bytes instead.",
            letter_filters(),
            {200: _json("Some of them.", "DeadLetters"), **_errors()},
        ),
        ("DELETE", "/v2/dlq"): _operation(
            LETTERS,
            "deleteDeadLetters",
            "Delete dead letters",
            f"{_EVERYTHING} {_FILTERS}",
            letter_filters(),
            {200: _json("How many were deleted, and where to go on.", "DeletedSome"), **_errors(413)},
            body=_ids("LetterIds"),
        ),
        ("POST", "/v2/dlq/retry"): _operation(
            LETTERS,
            "retryDeadLetters",
            "Retry dead letters",
            f"{_RETRY} What is gone meanwhile, or whose body is, is left out. A setting that can't be used for one of"
            f" them is refused before any is retried.\n\n{_EVERYTHING} {_FILTERS}",
            [*letter_filters(), *settings(policy)],
            {201: _json("The new messages, and where to go on.", "Retried"), **_errors(413)},
            body=_ids("LetterIds"),
        ),
        ("GET", "/v2/dlq/{id}"): _operation(
            LETTERS,
            "getDeadLetter",
            "Read a dead letter",
            "With its body, whatever its size.",
            [letter],
            {200: _json("The dead letter.", "DeadLetter"), **_errors(404)},
        ),
        ("DELETE", "/v2/dlq/{id}"): _operation(
            LETTERS,
            "deleteDeadLetter",
            "Delete a dead letter",
            "",
            [letter],
            {200: _json("It is deleted.", "Deleted"), **_errors(404)},
        ),
        ("POST", "/v2/dlq/retry/{id}"): _operation(
            LETTERS,
            "retryDeadLetter",
            "Retry a dead letter",
            f"{_RETRY} Of two retries at once, one makes a message.",
            [letter, *settings(policy)],
            {
                201: _json("The new message.", "Named"),
                **_errors(404),
                409: _json("Its body is gone.", "Error"),
            },
        ),
        ("GET", "/v2/events"): _list_logs("listEvents", "List events", "Events"),
        ("GET", "/v2/logs"): _list_logs("listLogs", "List events, as `logs`", "Logs"),
        **_groups(),
        **_schedules(policy),
        **_queues(),
        **_flow_control(),
        ("GET", "/v2/keys"): _operation(
            KEYS,
            "getKeys",
            "Read the signing keys",
            "Every request to an endpoint carries a JWT in `Upstash-Signature`, which the official receivers verify"
            " with these.",
            [],
            {200: _json("The pair.", "Keys"), **_errors()},
        ),
        ("POST", "/v2/keys/rotate"): _operation(
            KEYS,
            "rotateKeys",
            "Rotate the signing keys",
            "The next key becomes the current one, and a fresh one the next. Of several rotations at once one counts."
            " This answers once every request is signed with the key that both pairs have (5 s on AWS).",
            [],
            {200: _json("The new pair.", "Keys"), **_errors()},
        ),
        ("GET", "/healthz"): _operation(
            SERVER, "getHealth", "Is it up?", "", [], {200: _json("It is.", "Health")}, needs_token=False
        ),
        ("GET", "/openapi.json"): _operation(
            SERVER,
            "getDescription",
            "This description",
            "An OpenAPI 3.1 document of what this server serves, with the limits that it has.",
            [],
            {200: {"description": "The document.", "content": {"application/json": {"schema": {"type": "object"}}}}},
            needs_token=False,
        ),
        ("GET", "/docs"): _operation(
            SERVER,
            "getPage",
            "This description, to read",
            "",
            [],
            {200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}}},
            needs_token=False,
        ),
    }


#: What can be asked of a message that was accepted.
_LINKS = {
    one: {"operationId": one, "parameters": {"id": "$response.body#/messageId"}}
    for one in ("getMessage", "cancelMessage", "retryMessage")
}
_FILTERS = (
    "Repeated filters of one name are alternatives, different ones must all hold. A name that is no filter is refused,"
    " lest a mistyped one means everything."
)
_EVERYTHING = (
    f"**No ids and no filter are everything**, a page of {limits.LETTERS} at a time. Ids may stand in a JSON body"
    " instead of the query; an empty list names none."
)
_RETRY = (
    "A new message takes the entry's place, in one transaction: with all that the old one had, redacted values"
    " included. Settings of this request win, `Upstash-Forward-<Name>` and those behind a callback's prefix included."
    " It goes to the end of its queue, unless it is given a flow-control key."
)


def _groups() -> Mapping[tuple[str, str], Operation]:
    name = group()
    return {
        ("GET", "/v2/topics"): _operation(
            GROUPS,
            "listGroups",
            "List URL groups",
            f"""\
A URL group is endpoints under one name. A publish to it makes a message for each, in their order, with an id, retries
and, if need be, a dead letter of its own; it arrives with `Upstash-Topic-Name`. A deduplication id, and the content,
count for each endpoint of the group by itself. QStash calls groups topics here.

If the store fails in the middle of a publish, the error says how many messages were stored: publish again, under a
deduplication id if none may come twice. A group has {limits.GROUP_ENDPOINTS:,} endpoints at most, and {
                limits.ITEM // 1024
            } KB.""",
            [],
            {
                200: _json("All groups.", "Groups"),
                **_errors(),
                409: _too_long(),
            },
        ),
        ("GET", "/v2/topics/{name}"): _operation(
            GROUPS, "getGroup", "Read a URL group", "", [name], {200: _json("The group.", "Group"), **_errors(404)}
        ),
        ("PATCH", "/v2/topics/{name}"): _operation(
            GROUPS,
            "setGroupHeaders",
            "Give a URL group headers",
            "They take the place of those that it had, and stand for every publish to it that does not say otherwise:"
            " the request's own win.",
            [name],
            {200: _json("They stand.", "Nothing"), **_errors(404, 413)},
            body=_json_body("GroupHeaders"),
        ),
        ("DELETE", "/v2/topics/{name}"): _operation(
            GROUPS,
            "deleteGroup",
            "Delete a URL group",
            "Messages that were published to it are delivered all the same.",
            [name],
            {200: _json("There is no such group any more.", "Nothing"), **_errors()},
        ),
        ("POST", "/v2/topics/{name}/endpoints"): _operation(
            GROUPS,
            "addEndpoints",
            "Add endpoints to a URL group",
            "Makes the group if there is none. An endpoint of the same name gets the URL, one of the same URL the name."
            " Messages that were published keep what they have.",
            [name],
            {200: _json("They are there.", "Nothing"), **_errors(413)},
            body=_json_body("NewEndpoints"),
        ),
        ("DELETE", "/v2/topics/{name}/endpoints"): _operation(
            GROUPS,
            "removeEndpoints",
            "Remove endpoints from a URL group",
            "By URL, by name, or by both. What is not there is no error. A group without endpoints is none.",
            [name],
            {200: _json("They are not there any more.", "Nothing"), **_errors(404, 413)},
            body=_json_body("OldEndpoints"),
        ),
    }


def _schedules(policy: Policy) -> Mapping[tuple[str, str], Operation]:
    schedule = in_path("schedule", "The schedule's id.", "report")
    one = "/v2/schedules/{schedule}"
    paused = (
        "Occurrences are skipped until it is resumed. Messages that it has made are delivered. Pausing twice is no"
        " error."
    )
    resumed = "It goes on with its next occurrence; those it has missed are not made up for."

    def switch(name: str, summary: str, description: str) -> Operation:
        return _operation(
            SCHEDULES, name, summary, description, [schedule], {200: _json("It is so.", "Nothing"), **_errors(404)}
        )

    return {
        ("GET", "/v2/schedules"): _operation(
            SCHEDULES,
            "listSchedules",
            "List schedules",
            "A schedule publishes the same message again and again. Bodies that are larger than"
            f" {limits.BODY_AT_HAND:,} bytes as stored are left out, and those beyond {limits.SCHEDULE_BODIES:,} bytes"
            " together.",
            [],
            {200: _json("All of them.", "Schedules"), **_errors()},
        ),
        ("POST", one): _operation(
            SCHEDULES,
            "createSchedule",
            "Make a schedule, or replace one",
            """\
At each occurrence of `Upstash-Cron` a message is published to the destination with the body and settings of this
request; to a URL group, one to each endpoint that it has then. Settings are those of a publish, but for
`Upstash-Not-Before` and deduplication; `Upstash-Delay` delays each message. Headers of a URL group are taken over
when the schedule is made.

With the id of a schedule that there is, the whole definition takes its place: what is not given again is gone. It stays
paused if it was, and an occurrence that is due by then is fired.

Each occurrence is one message, to the second, whatever fails: after an outage the most recent one comes late, and those
before it are skipped. Where clocks are changed, a job at fixed hours and minutes runs once: right after the gap that
swallows its time, and in the first of two equal hours. One whose minute or hour begins with `*` goes by the clock on
the wall.""",
            [destination("schedule", "schedules"), *schedule_settings(policy)],
            {201: _json("It stands.", "Scheduled"), **_errors(404, 413)},
            body=_any_body(policy),
        ),
        ("GET", one): _operation(
            SCHEDULES, "getSchedule", "Read a schedule", "", [schedule], {200: _json("It.", "Schedule"), **_errors(404)}
        ),
        ("DELETE", one): _operation(
            SCHEDULES,
            "deleteSchedule",
            "Delete a schedule",
            "Messages that it has made are delivered all the same.",
            [schedule],
            {200: _json("There is no such schedule any more.", "Nothing"), **_errors(404)},
        ),
        ("PATCH", f"{one}/pause"): switch("pauseSchedule", "Pause a schedule", paused),
        ("POST", f"{one}/pause"): switch("pauseScheduleByPost", "Pause a schedule", paused),
        ("PATCH", f"{one}/resume"): switch("resumeSchedule", "Resume a schedule", resumed),
        ("POST", f"{one}/resume"): switch("resumeScheduleByPost", "Resume a schedule", resumed),
        ("POST", f"{one}/run"): _operation(
            SCHEDULES,
            "runSchedule",
            "Run a schedule now",
            "Publishes what it would publish, paused or not, and changes nothing about when it fires. This route is"
            " Waypost's own.",
            [schedule],
            {
                201: _accepted("The message, or to a URL group all of them."),
                **_errors(404, 413),
                409: _json("Its body is gone.", "Error"),
            },
        ),
    }


def _queues() -> Mapping[tuple[str, str], Operation]:
    name, one = queue(), "/v2/queues/{queue}"

    def switch(operation: str, summary: str, description: str) -> Operation:
        return _operation(
            QUEUES, operation, summary, description, [name], {200: _json("It is so.", "Nothing"), **_errors(404)}
        )

    return {
        ("GET", "/v2/queues"): _operation(
            QUEUES,
            "listQueues",
            "List queues",
            """\
A queue sends its messages in the order in which they came, at parallelism 1 one after the other: the next one starts
when the one before it has ended, with all its retries and callbacks. At a parallelism of N, N are under way at once,
and start in order.""",
            [],
            {200: _json("All of them.", "Queues"), **_errors(), 409: _too_long()},
        ),
        ("POST", "/v2/queues"): _operation(
            QUEUES,
            "upsertQueue",
            "Make a queue, or change it",
            "A queue that was paused goes on, unless this says that it is paused.",
            [],
            {200: _json("It stands.", "Nothing"), **_errors(413)},
            body=_json_body("NewQueue"),
        ),
        ("GET", one): _operation(
            QUEUES, "getQueue", "Read a queue", "", [name], {200: _json("It.", "Queue"), **_errors(404)}
        ),
        ("DELETE", one): _operation(
            QUEUES,
            "deleteQueue",
            "Delete a queue",
            "What waits in it is cancelled: nothing of it is sent once this has answered. What is under way goes on.",
            [name],
            {200: _json("There is no such queue any more.", "Nothing"), **_errors()},
        ),
        ("POST", f"{one}/pause"): switch(
            "pauseQueue",
            "Pause a queue",
            "It takes messages and sends none; an attempt that is under way goes on. Pausing twice is no error.",
        ),
        ("POST", f"{one}/resume"): switch("resumeQueue", "Resume a queue", "With the message that came first."),
    }


def _flow_control() -> Mapping[tuple[str, str], Operation]:
    key, one = flow_key(), "/v2/flowControl/{key}"

    def done(operation: str, summary: str, description: str, parameters: Sequence[Parameter] = ()) -> Operation:
        return _operation(
            FLOW,
            operation,
            summary,
            description,
            [key, *parameters],
            {200: _json("It is so.", "Nothing"), **_errors(404)},
        )

    reset = "The starts so far don't count, and a new period begins."
    return {
        ("GET", "/v2/flowControl"): _operation(
            FLOW,
            "listFlowControlKeys",
            "List flow-control keys",
            """\
Requests under one key share its limits: so many at once, so many starts in a period. What is beyond waits, in order; it
is not dropped, and no attempt is counted. Each retry waits for its turn again. The limits are those of the newest
message that brings some. A key is there once a message with it was accepted, or it was pinned.""",
            [searched()],
            {200: _json("All of them.", "FlowControlKeys"), **_errors(), 409: _too_long()},
        ),
        ("GET", one): _operation(
            FLOW,
            "getFlowControlKey",
            "Read a flow-control key",
            "",
            [key],
            {200: _json("It.", "FlowControlKey"), **_errors(404)},
        ),
        ("POST", f"{one}/pause"): done(
            "pauseFlowControlKey",
            "Pause a flow-control key",
            "Messages with it wait; its periods go on. Pausing twice is no error.",
        ),
        ("POST", f"{one}/resume"): done("resumeFlowControlKey", "Resume a flow-control key", ""),
        ("POST", f"{one}/pin"): _operation(
            FLOW,
            "pinFlowControlKey",
            "Pin the limits of a flow-control key",
            "Makes the key if there is none. What messages say does not count until it is unpinned: parallelism, and"
            f" rate with its period, each by itself; one of them at least. {reset}",
            [key, *pinned()],
            {200: _json("It is so.", "Nothing"), **_errors()},
        ),
        ("POST", f"{one}/unpin"): done(
            "unpinFlowControlKey",
            "Unpin the limits of a flow-control key",
            "They stay until a message brings others.",
            unpinned(),
        ),
        ("POST", f"{one}/resetRate"): done("resetFlowControlRate", "Reset the rate of a flow-control key", reset),
        ("POST", f"{one}/reset"): done("resetFlowControl", "Reset the rate, by its older name", reset),
        ("GET", "/v2/globalParallelism"): _operation(
            FLOW,
            "getGlobalParallelism",
            "Count the requests under all flow-control keys",
            "Of those that limit parallelism. It is a display: nothing limits them all together.",
            [],
            {200: _json("How many.", "GlobalParallelism"), **_errors()},
        ),
    }


def _too_long() -> Mapping[str, Any]:
    return _json(f"They have more than {limits.LIST_BYTES:,} bytes together.", "Error")


def _any_body(policy: Policy) -> Mapping[str, Any]:
    return {
        "required": False,
        "description": f"What is delivered: any bytes, {policy.max_body:,} at most.",
        "content": {"*/*": {"example": '{"hello": "world"}'}},
    }


def _batch(policy: Policy) -> Operation:
    return _operation(
        PUBLISHING,
        "publishBatch",
        "Publish many messages",
        f"""\
Everything is checked before anything is stored: one wrong item refuses all, and the error names it. Of items under
one deduplication id the first makes the message. The store may fail for some: then these have an `error` in their
places, and are to be sent again.

{limits.BATCH_MESSAGES:,} messages at most, one for each endpoint of a URL group; their bodies have
{policy.max_batch:,} bytes together at most. The request's own `Upstash-*` headers say nothing about its items.""",
        [],
        {
            200: _json("Nothing was asked for.", "BatchAnswer"),
            201: _json("At least one message is new.", "BatchAnswer"),
            202: _json("Earlier messages have all of the deduplication ids.", "BatchAnswer"),
            **_errors(413),
            503: _unavailable({"anyOf": [ref("Error"), ref("BatchAnswer")]}),
        },
        body=_json_body("Batch"),
    )


def _ids(schema: str) -> Mapping[str, Any]:
    return {**_json_body(schema), "required": False}


def _json_body(schema: str) -> Mapping[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": ref(schema)}}}


def _publish(policy: Policy) -> Operation:
    told = {
        "post": {
            "requestBody": {"content": {"application/json": {"schema": ref("Told")}}},
            "responses": {"200": {"description": "Any 2xx: it is told."}},
        }
    }
    return {
        **_operation(
            PUBLISHING,
            "publish",
            "Publish a message",
            f"""\
Stores the message, and delivers it to the destination. Everything is checked before anything is stored; an answer of
2xx means that it is on disk. To a URL group, it makes a message for each endpoint, and answers with a list.

Settings are headers, or query keys of the same names in lower case, such as `?upstash-delay=10s`; a header wins. An
empty one is none. One that is given twice with different values is refused (labels and fields to redact are lists).
The keys `upstash-*` and `qstash_token` never reach the destination; all others of the query are its own, and nobody's
where that is a URL group.

`Upstash-Forward-<Name>` is sent to the destination as `<Name>`, and `Content-Type` as it is. A header given twice is
joined with a comma. Headers of the connection (Host, Content-Length, ...) and Waypost's own are left out; a forwarded
`User-Agent` takes the place of Waypost's. All of them together may have {policy.max_headers:,} bytes.

Settings of QStash that are not served are refused by name. Unknown `Upstash-*` headers are ignored, and so are all
other headers.""",
            [destination(), *publish_settings(policy)],
            {
                201: {**_accepted("At least one message is new."), "links": _LINKS},
                202: _accepted("An earlier message has this deduplication id."),
                **_errors(404, 413),
            },
            body=_any_body(policy),
        ),
        "callbacks": {
            "Upstash-Callback": {"{$request.header.upstash-callback}": told},
            "Upstash-Failure-Callback": {"{$request.header.upstash-failure-callback}": told},
        },
    }


def _enqueue(policy: Policy) -> Operation:
    return _operation(
        PUBLISHING,
        "enqueue",
        "Put a message into a queue",
        """\
As a publish, by way of a queue, which is made at parallelism 1 if there is none. To a URL group, it puts a message for
each endpoint there. A message that is delayed takes its place when it is due. The queue's order counts, so there is no
flow-control key.""",
        [queue(), destination(route="enqueue/{queue}"), *queue_settings(policy)],
        {
            201: {**_accepted("At least one message is new."), "links": _LINKS},
            202: _accepted("An earlier message has this deduplication id."),
            **_errors(404, 413),
        },
        body=_any_body(policy),
    )


def _list_logs(name: str, summary: str, schema: str) -> Operation:
    return _operation(
        LOGS,
        name,
        summary,
        f"""\
What befell messages, an event for each step: CREATED; for each attempt ACTIVE and DELIVERED, or ACTIVE, ERROR and
RETRY, after the last one ERROR and FAILED; CANCEL_REQUESTED and CANCELED. An event also has what its message was
accepted with.

Events are there 2 s after they happened (5 s on AWS), CREATED at once. By `messageId` all are there at once: they are
read from the message itself, which tells of its last {limits.ATTEMPTS_BEFORE_LAST + 1} attempts, and of the last
one's answer.

{_FILTERS} A page may have fewer events than `count`, or none, and still have a cursor: only one without is the end.""",
        log_filters(),
        {200: _json("Some events.", schema), **_errors()},
    )


def _operation(
    tag: str,
    name: str,
    summary: str,
    description: str,
    parameters: Sequence[Parameter],
    responses: Mapping[int, Any],
    *,
    body: Mapping[str, Any] | None = None,
    needs_token: bool = True,
) -> Operation:
    operation: Operation = {"tags": [tag], "operationId": name, "summary": summary}
    if description:
        operation["description"] = description
    if parameters:
        operation["parameters"] = list(parameters)
    if body:
        operation["requestBody"] = dict(body)
    operation["responses"] = {str(status): response for status, response in responses.items()}
    if not needs_token:
        operation["security"] = []
    return operation


def _accepted(description: str) -> Mapping[str, Any]:
    """A URL group's are a list."""
    schema = {"anyOf": [ref("Accepted"), {"type": "array", "items": ref("Accepted")}]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _json(description: str, schema: str) -> Mapping[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ref(schema)}}}


_WRONG = {
    400: "A field has a value that can't be used; the error names it.",
    401: "There is no token, or it is not this server's.",
    404: "It is unknown, or kept no longer.",
    413: "The body is larger than the limit.",
    431: f"Request line and headers have more than {limits.REQUEST_HEAD:,} bytes.",
}


def _errors(*statuses: int) -> Mapping[int, Any]:
    """With those that any route that needs a token may answer."""
    found = {status: _json(_WRONG[status], "Error") for status in sorted({*statuses, 400, 401, 431})}
    return {**found, 503: _unavailable(ref("Error"))}


def _unavailable(schema: Schema) -> Mapping[str, Any]:
    return {
        "description": "The store could not be reached. Try again.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
        "content": {"application/json": {"schema": schema}},
    }
