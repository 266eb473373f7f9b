"""POST / accepts an order and queues a mail for it; GET /rate fetches from another service."""

from rpc import call

from workers import Response, WorkerEntrypoint, fetch

MAIL_SERVICE = "https://mail.example.com/send"
RATE_SERVICE = "https://rates.example.com/eur"


class Default(WorkerEntrypoint):
    """Accepts orders over HTTP, and sends the queued mails."""

    async def fetch(self, request):
        if request.method == "GET":
            answer = await fetch(RATE_SERVICE)
            return Response(await answer.text(), status=answer.status)
        order = await request.json()
        if not order.get("item"):
            return Response.json({"error": "no item"}, status=400)
        await call(self.env.ORDERS, "send", [order])
        await self.env.MAILS.send({"to": order["mail"], "item": order["item"]})
        return Response("OK")

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            answer = await fetch(MAIL_SERVICE, method="POST")
            if answer.ok:
                message.ack()
            else:
                message.retry(delaySeconds=60)
