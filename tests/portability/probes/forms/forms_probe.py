"""Probes of FormData, Blob and File: each path runs one function."""

from urllib.parse import urlsplit

from workers import Blob, BlobEnding, File, FormData, Request, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        result = await globals()[urlsplit(request.url).path.strip("/")](request)
        return Response.json(result) if isinstance(result, list | dict) else result


async def failing(call):
    try:
        result = call()
        if hasattr(result, "__await__"):
            await result
    except Exception as error:
        return type(error).__name__
    return "nothing"


async def form_as_a_mapping(request):
    form = FormData({"a": "1", "b": "2"})
    form.append("a", "3")
    form["c"] = "4"
    seen = [list(form), form["a"], form.get_all("a"), "b" in form, "z" in form, list(form.values())]
    del form["a"]
    form["b"] = "5"
    form.delete("c")
    return [*seen, list(form.items()), bool(form["z"]), await failing(lambda: len(form))]


async def form_refusals(request):
    form = FormData()
    return [
        await failing(lambda: FormData([("a", "1")])),
        await failing(lambda: form.__setitem__("a", ["1", "2"])),
        await failing(lambda: form.append("a", "text", "name.txt")),
    ]


async def form_of_files(request):
    form = FormData()
    form.append("blob", Blob("abc", "text/x"))
    form.append("named", Blob("def"), "n.txt")
    form["file"] = File(["gh", b"i"], "f.bin", content_type="x/y", last_modified=5)
    shown = []
    for name, value in form.items():
        shown.append(
            [name, type(value).__name__, value.name, value.content_type, await value.text()]
        )
    return shown


async def urlencoded(request):
    form = await request.form_data()
    return [list(form.items()), form.get_all("a")]


async def multipart(request):
    form = await request.form_data()
    shown = []
    for name, value in form.items():
        if isinstance(value, File):
            value = [value.name, value.content_type, list(await value.bytes())]
        shown.append([name, value])
    return shown


async def no_form(request):
    return [await failing(request.form_data)]


async def a_form_there_and_back(request):
    form = FormData({"text": "line\nline", "quote": 'a"b'})
    form.append("file", File(b"\r\n--x\r\n\x00", "wéird.bin", content_type="x/y"))
    made = Request("http://a.example/", method="POST", body=form)
    kind = made.headers["content-type"].partition(";")[0]
    back = await made.form_data()
    return [
        kind,
        [name for name in back],
        back["text"].replace("\r\n", "\n"),
        back["quote"],
        back["file"].name,
        list(await back["file"].bytes()),
    ]


async def a_form_as_a_response(request):
    response = Response(FormData({"a": "1"}))
    kind = response.headers["content-type"].partition(";")[0]
    return [kind, (await response.form_data())["a"]]


async def blobs(request):
    blob = Blob(["a", b"bc", Blob("d"), memoryview(b"e")], content_type="Text/Plain")
    part = blob.slice(1, 3, "x/y")
    return [
        blob.size,
        blob.content_type,
        await blob.text(),
        list(await blob.bytes()),
        [part.size, part.content_type, await part.text()],
        await blob.slice(-2).text(),
        Blob(blob).content_type,
        Blob([blob]).content_type,
        Blob("x", endings=BlobEnding.NATIVE).size,
        await failing(lambda: Blob(5)),
        await failing(lambda: Blob([{}])),
        await failing(lambda: Blob("x", endings="mac")),
    ]


async def files(request):
    file = File("abc", "a.txt", last_modified=1234, content_type="x/y")
    again = File(file, "b.txt")
    return [
        [file.name, file.size, file.last_modified, file.content_type, await file.text()],
        [again.name, again.last_modified, again.content_type, await again.text()],
        isinstance(file, Blob),
        File(["x"], "c").last_modified > 0,
    ]


async def blob_of_a_body(request):
    blob = await request.blob()
    other = await Response("abc", headers={"content-type": "x/z"}).blob()
    return [type(blob).__name__, blob.content_type, await blob.text(), other.content_type]


async def blob_as_a_body(request):
    return Response(Blob("abc", "x/blob").js_object, status=201)


async def a_wrapped_blob_is_no_body(request):
    return [await failing(lambda: Response(Blob("abc")))]
