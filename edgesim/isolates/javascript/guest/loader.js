// Entry of workerd at the level `process`: every event in a fresh isolate, made for it alone.

const PING = '{"handler":"ping"}';
const SETTLE = '{"handler":"settle"}';
const INVOKE = "x-edgesim-invoke";

export default {
  async fetch(request, env, context) {
    if (request.headers.get(INVOKE) === PING) return new Response();
    const { date, flags, main, modules, variables } = env.WORKER;
    const isolate = env.LOADER.load({
      compatibilityDate: date,
      compatibilityFlags: flags,
      mainModule: main,
      modules: Object.fromEntries(
        modules.map(([name, kind], index) => [name, { [kind]: env[`MODULE_${index}`] }]),
      ),
      env: { ...variables, EDGESIM_PLATFORM: env.EDGESIM_PLATFORM },
      globalOutbound: env.EDGESIM_PLATFORM,
    });
    const entrypoint = isolate.getEntrypoint();
    const response = await entrypoint.fetch(request);
    // The isolate ends with its last event: one that waits for the end of the invocation.
    context.waitUntil(entrypoint.fetch("http://edgesim/", { headers: { [INVOKE]: SETTLE } }));
    return response;
  },
};
