"""`parrot models`: the models that have a name."""


def models() -> None:
    """List the models that have a name, and where they are.

    Wherever a name is accepted, so is the path of a .gguf file or of a Hugging Face folder with safetensors.

    \b
    Example:
      parrot models
    """
    from rich.filesize import decimal
    from rich.table import Table

    from parrotserve.cli.console import standard_output
    from parrotserve.models.registry import list_models

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "cached", "size", "what it is"):
        table.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for model in list_models():
        name = " ".join((model.name, *(f"({alias})" for alias in model.aliases)))
        cached = "no" if model.path is None else "yes"
        table.add_row(name, cached, decimal(model.size), model.description)
    console = standard_output()
    console.print(table)
    for model in list_models():
        if model.path is not None:
            # On a line of its own, which is not folded, so that it can be copied.
            console.out(f"{model.name}: {model.path}", highlight=False)
