"""The wire protocol: what is sent to the authentication server and what its responses mean.

It changes only when the server does. It may import errors, and knows neither Flask nor settings."""
