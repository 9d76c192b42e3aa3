"""`parrot serve`: the service over HTTP."""

from typing import Any

from parrotserve.cli.options import takes_settings


@takes_settings
def serve(settings: dict[str, Any]) -> None:
    """Serve programs over HTTP, until Ctrl-C.

    Programs use the service with PARROT_URL set, or after `P.connect(url)`. A setting that is not given comes from the
    environment (--kv-memory from PARROT_KV_MEMORY), else from the file of settings (kv_memory), else the default;
    `parrot config` shows which.

    \b
    Examples:
      parrot serve
      parrot serve --port 9000 --model smollm2-135m --model ./other.gguf
      PARROT_URL=http://127.0.0.1:8000 parrot run examples/hello.py
    """
    import logging

    from parrotserve.config import ServiceConfig
    from parrotserve.embedded import PullBar
    from parrotserve.server.run import serve as run_server

    config = ServiceConfig.load(**settings)
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with PullBar() as bar:
        run_server(config, progress=bar)
