"""HTTP: from the bytes of a request to its handler and back, with limits, problem documents and /openapi.json.

A service says `make_app(bind(routes, parts), middleware, lifespan)`; a handler is declared with `@operation()`.
"""
