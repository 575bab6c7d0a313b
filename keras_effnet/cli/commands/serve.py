"""`keras-effnet serve`: a page on this machine that runs `.tflite` files in the browser. No TensorFlow."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from keras_effnet.cli import console
from keras_effnet.cli.options import refuse_unused, was_given
from keras_effnet.cli.parameter_types import Whole


@click.command("serve")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 lets others in.")
@click.option(
    "--port",
    type=Whole(0, 65535),
    default=8000,
    help="Port to listen on; 0 takes any free one. [default: 8000, or the next free one]",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option("--save", type=click.Path(path_type=Path), help="Write the page to a folder instead, for a static host.")
@click.option("--overwrite", is_flag=True, help="Replace the page in that folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the address or the folder, and the files.")
def command(target, host, port, open_browser, save, overwrite, as_json) -> None:
    """Try the files of TARGET (a .tflite file, or a folder of `export`) in the browser, on images and the camera.

    The network runs in the browser, on LiteRT.js; images are not uploaded, and nothing is loaded from the internet.
    """
    from keras_effnet.export.web.page import page_of, write_page
    from keras_effnet.export.web.server import open_server

    if save is None:
        refuse_unused(["overwrite"], "it replaces the page that --save wrote.")
    else:
        refuse_unused(["host", "port", "open_browser"], "--save writes a folder and serves nothing.")
    page = page_of(target, console.say)
    shown = {"name": page.name, "files": list(page.models)}
    if save is not None:
        folder = write_page(page, save, overwrite=overwrite)
        if as_json:
            return console.emit_json(shown | {"folder": str(folder)})
        following = ("python", "-m", "http.server", "--directory", folder)
        return console.finish(f"{folder} (index.html and all that it loads)", following)
    with open_server(page.files, host, port, exactly=was_given("port") and port != 0) as server:
        if not server.loopback:
            console.say(f"Everyone who reaches {host} can load the files; cameras need https there.")
        if as_json:
            console.emit_json(shown | {"url": server.url})
        else:
            models = f"{len(page.models)} files" if len(page.models) > 1 else page.models[0]
            click.echo(f"{page.name} ({models}) at {server.url}   Ctrl-C ends.")
        if open_browser:
            click.launch(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return None
