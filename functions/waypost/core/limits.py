"""The figures that bound what callers say and are told, and that no setting changes; `policy` has the others.

Sizes are bytes, lengths characters. `docs/limits.md` and `/docs` list them all: whoever adds one lists it in
`openapi/limit_table.py`.
"""

from __future__ import annotations

from waypost.core.policy import DAY, MINUTE

# What a request says -------------------------------------------------------------------------------------------------

#: Request line, headers and what stands around a body's chunks.
REQUEST_HEAD = 131_072
#: A caller whose head, or whose body, takes longer is let go.
HEAD_S = 60
BODY_S = 60
#: A connection without a request is closed after this.
IDLE_S = 75
#: Requests of a connection that may wait in line behind the one that is served.
IN_LINE = 16
URL_LENGTH = 8_000
HOST_LENGTH = 253
LABELS_LENGTH = 1_024
EXPRESSION_LENGTH = 256
EXPRESSION_DEPTH = 32
#: Of a group, and of an endpoint in it.
GROUP_NAME_LENGTH = 256
GROUP_ENDPOINTS = 1_000
CRON_LENGTH = 256
SCHEDULE_ID_LENGTH = 256
QUEUE_NAME_LENGTH = 256
#: A sort key has 1,024 bytes, of which a character takes up to four.
FLOW_KEY_LENGTH = 250
#: Messages of a queue, or requests under a key, at once; starts in a period, and how long that is.
PARALLELISM = 1_000
RATE = 100_000
PERIOD_MS = 7 * DAY
#: Messages of one request, when its groups are expanded.
BATCH_MESSAGES = 1_000
#: Of a number, or a time, in a query.
NUMBER_DIGITS = 20
#: A function is handed 6 MB at most, and bodies as base64, or quoted in a batch; the slow queue's lives for 15 minutes.
BODY_ON_AWS = 4_000_000
TIMEOUT_ON_AWS_MS = 14 * MINUTE

# Deliveries ----------------------------------------------------------------------------------------------------------

ANSWER_BODY = 64 * 1024
ANSWER_HEAD = 64 * 1024
#: The longest wait before a retry, whoever asks for it.
WAIT_MS = DAY
#: An attempt that did not return so often ends the message: something in it kills its worker.
CRASHES = 6

# What is kept and told -----------------------------------------------------------------------------------------------

#: A body to this size, compressed if that helps, stands in its message's item, where logs find it; a larger one is a
#: blob: a table's write costs by the kilobyte.
BODY_AT_HAND = 8_192
#: What a message's state, and so its events, keep of an answer, and of an error.
ATTEMPT_ANSWER = 1_024
ATTEMPT_ANSWER_HEADERS = 1_024
ERROR_LENGTH = 300
#: How many attempts a state tells of, besides the last.
ATTEMPTS_BEFORE_LAST = 20
#: A queue waits for so many callbacks of one message, the last ones.
AWAITED_CALLBACKS = 100
#: What a dead letter keeps of the last answer.
LETTER_ANSWER = 16_384
LETTER_ANSWER_HEADERS = 8_192

#: Of the messages of its last firing, a schedule tells of so many.
FIRED_MESSAGES = 100
#: Of an item of the table: a message or a schedule without a body of its own, or a URL group.
ITEM = 400 * 1024

# Lists ---------------------------------------------------------------------------------------------------------------

#: Dead letters of a page.
LETTERS = 100
#: So many ids that one call has done with all of them.
LETTER_IDS = 400
#: One call looks at so many entries of 4 KB, or at fewer larger ones.
LETTERS_LOOKED_AT = 2_000
#: A list ends early before it has more bytes than this: Lambda hands on 6 MB, in which each quote takes two.
LETTER_BYTES = 3_000_000
#: Of entries that were named, those beyond this leave their bodies out.
LETTER_BYTES_WHOLE = 2_000_000
#: URL groups, queues and flow-control keys are listed all at once: a function's answer may have 6 MB.
LIST_BYTES = 4_000_000
#: Messages that are cancelled by their ids at once.
CANCEL_IDS = 1_000
#: A list of schedules leaves bodies out when it has so many bytes of them, since it has no pages.
SCHEDULE_BODIES = 2_000_000
#: Events of a page, and messages that one may be asked for.
LOG_EVENTS = 1_000
LOG_IDS = 100
#: An answer ends early when it has grown so long: a function's may have 6 MB.
LOG_BYTES = 4_000_000
#: What one page may read, in events.
LOG_EVENTS_READ = 100_000
