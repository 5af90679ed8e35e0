"""The engine. No integration imports this package; the command line, the inspector and the launcher may.

An event passes the folders in this order: `identity` (the acting user), `capture` (a finished call becomes a record),
`delivery` (records become items, batches and requests), `outbox` (the queue on disk), `transports` (destinations).
`process` holds forks and ends of the process; `client.py` wires all of these.

| change | place |
|---|---|
| an exporter, such as a message queue | `transports/`, `assembly.transport_opener`, `config.EXPORTERS` |
| a framework | none here: a file in `ts_autotrack/integrations/` that uses the public package |
| a retry rule | `delivery/answers.py`, `delivery/backoff.py` (pauses), `delivery/endpoint.py` (faulty items) |
| a source of ids, such as a header or a baggage key | `identity/baggage.py` |
| a JSON form of a value | `forms.py`, `scalars.py` |
| a setting | `config.SETTINGS` and its `Config`, `api.configure`, README |
| a drop reason | `typing.DropReason`; before the buffer also `capture/buffer.py` |
| an end of the process | `process/exits.py` |
| a command | `ts_autotrack/cli/` |
| a limit of the outbox | `outbox/writer.py`, `config.OutboxSettings` |
"""
