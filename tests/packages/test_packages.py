"""Popular packages, vendored as ``pywrangler`` lays them out: the same at every level.

``make test`` installs them into the environment's own folder; without it this is skipped.
"""

import os
import sys
from pathlib import Path

import pytest

from edgesim.model import BindingSpec
from tests.conformance.test_isolates import LEVELS, Level, Recorder

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]  # theirs, at inline

FOLDER = Path(sys.prefix) / "packages"
SOURCE = """
def pydantic():
    import pydantic
    class M(pydantic.BaseModel):
        a: int
        b: list[str] = []
    return M.model_validate_json('{"a": "3", "b": ["x"]}').model_dump_json()
def orjson():
    import orjson
    return orjson.dumps({"a": [1, None]}).decode()
def msgpack():
    import msgpack
    return str(msgpack.unpackb(msgpack.packb({"a": [1, 2]})))
def attrs():
    import attrs
    @attrs.define
    class P:
        x: int = attrs.field(converter=int)
    return repr(P("4"))
def yaml():
    import yaml
    return str(yaml.safe_load("a: [1, 2]"))
def jinja2():
    import jinja2
    return jinja2.Template("{% for i in x %}{{ i|upper }}{% endfor %}").render(x="ab")
def markupsafe():
    import markupsafe
    return str(markupsafe.escape("<a>"))
def pygments():
    import pygments, pygments.lexers, pygments.formatters
    lexer, formatter = pygments.lexers.PythonLexer(), pygments.formatters.HtmlFormatter()
    return pygments.highlight("x = 1", lexer, formatter)[:60]
def dateutil():
    import dateutil.parser
    return str(dateutil.parser.parse("3 May 2026 10:00"))
def pytz():
    import pytz, datetime
    return str(pytz.timezone("Europe/Lisbon").localize(datetime.datetime(2026, 7, 1)))
def tzdata():
    import zoneinfo, datetime
    return str(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Asia/Tokyo")).utcoffset())
def click():
    import click
    @click.command()
    @click.option("--n", type=int)
    def c(n):
        return n + 1
    return str(c.main(["--n", "3"], standalone_mode=False))
def rich():
    import rich.table, rich.console, io
    out = io.StringIO()
    t = rich.table.Table("a"); t.add_row("b")
    rich.console.Console(file=out, width=20).print(t)
    return repr(out.getvalue()[:20])
def httpx():
    import httpx
    return str(httpx.URL("http://a/b?c=d").params)
def certifi():
    import certifi
    return str(len(certifi.contents()) > 1000)
def idna():
    import idna
    return idna.encode("bücher.de").decode()
def charset_normalizer():
    import charset_normalizer
    text = "Это строка, написанная по-русски"
    return charset_normalizer.from_bytes(text.encode("cp1251")).best().encoding
def bs4():
    import bs4
    return bs4.BeautifulSoup("<p>a<b>c</b>", "html.parser").b.text
def defusedxml():
    import defusedxml.ElementTree as E
    return E.fromstring("<a><b/></a>")[0].tag
def toolz():
    import toolz
    return str(toolz.groupby(len, ["a", "bb", "c"]))
def more_itertools():
    import more_itertools
    return str(list(more_itertools.chunked(range(5), 2)))
def sortedcontainers():
    import sortedcontainers
    return str(sortedcontainers.SortedDict(b=1, a=2))
def tenacity():
    import tenacity
    n = []
    @tenacity.retry(stop=tenacity.stop_after_attempt(3))
    def f():
        n.append(1)
        if len(n) < 3: raise ValueError
        return len(n)
    return str(f())
def structlog():
    import structlog
    return structlog.processors.JSONRenderer()(None, "info", {"a": 1})
def jsonschema():
    import jsonschema
    try:
        jsonschema.validate({"a": "x"}, {"properties": {"a": {"type": "integer"}}})
    except jsonschema.ValidationError as e:
        return e.message
def cryptography():
    from cryptography.hazmat.primitives import hashes
    h = hashes.Hash(hashes.SHA256()); h.update(b"a")
    return h.finalize().hex()[:8]
def PIL():
    import PIL.Image, io
    o = io.BytesIO(); PIL.Image.new("RGB", (2, 2), "red").save(o, "PNG")
    return str(PIL.Image.open(io.BytesIO(o.getvalue())).getpixel((0, 0)))
def regex():
    import regex
    return str(regex.findall(r"\\p{Lu}", "aBcD"))
def ujson():
    import ujson
    return ujson.dumps({"a": 1})
async def fastapi():
    import fastapi, pydantic
    from workers import asgi
    app = fastapi.FastAPI()
    class Item(pydantic.BaseModel):
        a: int
    @app.post("/items/{name}")
    async def items(name: str, item: Item, env=asgi.env):
        return {"name": name, "got": item.a + 1, "env": env.ME}
    options = {"method": "POST", "headers": {"content-type": "application/json"}}
    answers = [
        await asgi.fetch(app, Request("http://x/items/b%20c", body=body, **options), env)
        for body in ('{"a": 2}', '{"a": "x"}')
    ]
    return f"{answers[0].status} {(await Response(answers[0]).text())} {answers[1].status}"

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        answer = globals()[await request.text()]()
        return Response(str(await answer if asyncio.iscoroutine(answer) else answer))
"""
SAID = {
    "pydantic": '{"a":3,"b":["x"]}',
    "orjson": '{"a":[1,null]}',
    "msgpack": "{'a': [1, 2]}",
    "attrs": "P(x=4)",
    "yaml": "{'a': [1, 2]}",
    "jinja2": "AB",
    "markupsafe": "&lt;a&gt;",
    "pygments": '<div class="highlight"><pre><span></span><span class="n">x</',
    "dateutil": "2026-05-03 10:00:00",
    "pytz": "2026-07-01 00:00:00+01:00",
    "tzdata": "9:00:00",
    "click": "4",
    "rich": "'┏━━━┓\\n┃ a ┃\\n┡━━━┩\\n│ '",
    "httpx": "c=d",
    "certifi": "True",
    "idna": "xn--bcher-kva.de",
    "charset_normalizer": "cp1251",
    "bs4": "c",
    "defusedxml": "b",
    "toolz": "{1: ['a', 'c'], 2: ['bb']}",
    "more_itertools": "[[0, 1], [2, 3], [4]]",
    "sortedcontainers": "SortedDict({'a': 2, 'b': 1})",
    "tenacity": "3",
    "structlog": '{"a": 1}',
    "jsonschema": "'x' is not of type 'integer'",
    "cryptography": "ca978112",
    "PIL": "(255, 0, 0)",
    "regex": "['B', 'D']",
    "ujson": '{"a":1}',
    "fastapi": '200 {"name":"b c","got":3,"env":"w"} 422',
}


@pytest.mark.parametrize("name", LEVELS)
async def test_packages(name, tmp_path):
    """Each is imported and used twice, those with parts in C too, FastAPI by workers.asgi."""
    if not (FOLDER / "python_modules").is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("no packages: run the tests by `make test`")
        pytest.skip("no packages: `make test` installs them")
    (tmp_path / "python_modules").symlink_to(FOLDER / "python_modules")
    level = Level(name, tmp_path)
    said: list[dict[str, str]] = []
    async with level.load(SOURCE, BindingSpec("ME", "text", "w")) as isolates:
        for _ in range(2):
            said.append({})
            for package in SAID:
                host = Recorder(level.clock)
                done = await isolates.invoke(level.request(body=package.encode()), host)
                assert done.outcome == "ok", (package, done.exceptions)
                said[-1][package] = host.responses[0].body.decode()
    assert said == [SAID, SAID]
