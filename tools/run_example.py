"""Serve the example application. Its log omits queries, since they contain codes."""

import argparse

from werkzeug.serving import WSGIRequestHandler, make_server

from example_app import create_app


class RequestHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self.log("info", "%s %s %s", self.command, self.path.partition("?")[0], int(code))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port", type=int, required=True)
make_server(
    "127.0.0.1",
    parser.parse_args().port,
    create_app(),
    threaded=True,
    request_handler=RequestHandler,
).serve_forever()
