"""A second module of the Worker in worker.py, whose names it changes too."""

names = {"list": [1, 2], "text": "a"}


def greet(name="you", *, mark="!"):
    return f"hello {name}{mark}"


def __getattr__(name):
    if name == "lazy":
        globals()["lazy"] = [0]
        return globals()["lazy"]
    raise AttributeError(name)
