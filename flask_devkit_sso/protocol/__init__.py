"""The wire protocol: what is sent to the authentication server and what its responses mean.

It changes only when the server does. It knows no settings. It may import bulkhead, errors and
per_process."""
