"""The commands of ``flask devkit-sso``.

It may import everything except testing. Nothing imports it."""
