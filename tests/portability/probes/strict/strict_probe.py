"""Handlers with too few parameters: the platform calls all but fetch with three arguments."""

from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        print("made")

    async def fetch(self):
        return Response("no parameter at all")

    async def queue(self, batch):
        print("never")

    async def tail(self, events):
        print("never")

    async def scheduled(self, controller):
        print("never")

    async def method(self, one):
        return one
